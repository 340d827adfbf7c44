"""What people said, on the page of the next run."""

import logging
import re
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from pipeline.contract.corrections import Correction
from pipeline.monitoring.model.people import CONFUSIONS_SHOWN, render_people
from pipeline.output.corrections.collected import add
from pipeline.output.corrections.overview import Overview
from pipeline.storage.store import Store
from tests.support.outputs.closed_runs import close_run, rows_of

RUN = "20261126T000000Z-aa"
EVIL = "<script>alert('x')</script>"
SAID = [
    Correction(
        uri=f"s3://b/{n}.jpg",
        label="cat" if n < 931 else EVIL,
        proposed="cat",
        queue="random",
        run_id=RUN,
        who=EVIL,
        when="2026-11-26T00:00:00.000Z",
    )
    for n in range(1000)
]


def test_the_accuracy_of_the_whole_and_where_people_disagreed() -> None:
    page = render_people(Overview.of(SAID))
    told = (
        "The random sample says 93.1% ± 1.6% (n = 1,000; from 91.4% to 94.5% with 95% confidence)"
    )
    assert told in page
    runs, confusions = re.findall(r"<h2>(Accuracy.*?|Where.*?)</h2><table>(.*?)</table>", page)
    cells = re.findall(r"<td[^>]*>([^<]*)", runs[1])
    assert cells == [RUN, "93.1%", "91.4%", "94.5%", "1,000"]
    cells = re.findall(r"<td[^>]*>([^<]*)", confusions[1])
    assert cells == ["cat", "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;", "69"]
    assert "<script" not in page


def test_what_is_not_random_says_nothing_of_the_whole() -> None:
    page = render_people(Overview.of([replace(one, queue="uncertain") for one in SAID]))
    assert "random sample" not in page
    assert "None of them was drawn at random" in page
    assert "Where people disagreed" in page


def test_few_are_shown_and_nothing_of_nothing() -> None:
    many = [replace(one, label=f"class {n % 50}") for n, one in enumerate(SAID)]
    page = render_people(Overview.of(many))
    assert page.count("class ") == CONFUSIONS_SHOWN
    assert render_people(Overview.of([])) == ""


def test_the_next_run_says_it_whatever_else_lies_there(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that somebody has damaged is named, and fails no night."""
    rows = rows_of(np.full((4, 2), 0.5, np.float32), ["cat", "dog"])
    first = close_run(store, rows, ["cat", "dog"])
    assert b"people" not in store.read_bytes(f"runs/{first.run_id}/report.html").lower()
    add(store, SAID, datetime(2026, 11, 27, tzinfo=UTC))
    store.write_bytes("corrections/half.csv", b"uri,label\na.jpg\n")
    with caplog.at_level(logging.WARNING):
        second = close_run(store, rows, ["cat", "dog"])
    page = store.read_bytes(f"runs/{second.run_id}/report.html").decode()
    assert "The random sample says 93.1%" in page
    assert "half.csv: line 2 has 1 cells, the header 2" in page
    assert "half.csv: line 2 has 1 cells" in caplog.text
