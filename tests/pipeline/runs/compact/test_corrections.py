"""What people said of images is no matter of runs, and stays when they are combined."""

from datetime import UTC, datetime

from pipeline.contract.corrections import Correction
from pipeline.output.corrections.collected import add, standing
from pipeline.storage.store import Store
from tests.support.outputs.compacting import combined, nights, present, rows_now


def test_what_people_said_stays(store: Store) -> None:
    nights(store, 1)
    uri = next(iter(present(rows_now(store))))
    add(store, [Correction(uri=uri, label="a person's")], datetime(2026, 11, 27, tzinfo=UTC))
    before = {name: store.read_bytes(name) for name in store.list("corrections")}
    combined(store, drop_vanished=True)
    assert {name: store.read_bytes(name) for name in store.list("corrections")} == before
    assert len(before) == 2
    assert standing(store)[uri].label == "a person's"
