"""How long a plan takes, by the runs before, with and without a second model."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.contract.manifest import Manifest
from pipeline.output.ledger.history import History
from pipeline.output.open_run import OpenRun
from pipeline.plan.diff import Plan
from pipeline.plan.forecast import Forecast
from pipeline.storage.store import Store
from tests.support.inputs.world import World, listing_of


def run(**values: Any) -> Manifest:
    """Of 1,000 images in 100 s, half of which each of two actors was busy with its network."""
    given = {
        "run_id": "r", "files": [], "identity": {}, "spec": {}, "actors": {"reached": 2},
        "counts": {"listed": 1000, "ok": 1000, "failed": 0, "skipped": 0},
        "timings": {"execute": 100, "stage_inferred": 1000, "stage_infer_seconds": 100},
    }  # fmt: skip
    return Manifest.from_dict(given | values)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    found = Plan(World().ledger(), OpenRun(Store(str(tmp_path))))
    found.survey(listing_of({f"{number}.jpg": "A" for number in range(200)}))
    return found


def seconds(plan: Plan, *runs: Manifest, in_shadow: bool) -> float | None:
    return Forecast.of(plan, History(Store("out"), runs), in_shadow=in_shadow).seconds


def test_a_second_model_takes_as_long_as_the_first(plan: Plan) -> None:
    assert seconds(plan, run(), in_shadow=False) == pytest.approx(20)
    assert seconds(plan, run(), in_shadow=True) == pytest.approx(30)
    both = run(shadow={"model": "m"})
    assert seconds(plan, both, in_shadow=True) == pytest.approx(20)
    assert seconds(plan, both, in_shadow=False) == pytest.approx(15)


def test_the_newest_run_of_enough_images_counts(plan: Plan) -> None:
    few = run(timings={"execute": 1, "stage_inferred": 10})
    slow = run(timings={"execute": 1000, "stage_inferred": 1000})
    assert seconds(plan, few, run(), slow, in_shadow=False) == pytest.approx(20)
    assert seconds(plan, few, in_shadow=False) is None


def test_what_a_run_does_not_say_is_not_guessed(plan: Plan) -> None:
    silent = run(timings={"execute": 100, "stage_inferred": 1000})
    assert seconds(plan, silent, in_shadow=False) == pytest.approx(20)
    assert seconds(plan, silent, in_shadow=True) is None
    assert seconds(plan, run(actors=None), in_shadow=True) is None
