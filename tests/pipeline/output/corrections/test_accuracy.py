"""What a random sample of corrections says of all images, held against SciPy."""

import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.contract.corrections import Correction, Queue, Verdict
from pipeline.output.corrections.accuracy import (
    Accuracy,
    Confusion,
    accuracy,
    accuracy_by_run,
    confusions,
)
from pipeline.output.corrections.overview import Overview

RUN_1, RUN_2 = "20261126T000000Z-aa", "20261127T000000Z-bb"
TODAY, TOMORROW = "2026-11-27T00:00:00.000Z", "2026-11-28T00:00:00.000Z"


def said(
    uri: str,
    label: str,
    proposed: str = "cat",
    queue: Queue | None = "random",
    run_id: str = RUN_1,
    when: str = TODAY,
    verdict: Verdict = "label",
) -> Correction:
    return Correction(
        uri=uri,
        label=label,
        verdict=verdict,
        proposed=proposed,
        queue=queue,
        run_id=run_id,
        when=when,
    )


NO_CLASS, BAD = said("none", "", verdict="none"), said("bad", "", verdict="bad_picture")


@pytest.mark.parametrize(
    ("right", "images"), [(931, 1000), (0, 7), (7, 7), (1, 1), (49, 50), (1, 4000)]
)
def test_the_interval_is_wilsons(right: int, images: int) -> None:
    theirs = binomtest(right, images).proportion_ci(confidence_level=0.95, method="wilson")
    assert Accuracy(right, images).interval == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.binomial(200, 0.9, size=4000).tolist()
    covered = [low <= 0.9 <= high for low, high in (Accuracy(k, 200).interval for k in drawn)]
    assert 0.93 < np.mean(covered) < 0.97


def test_how_it_is_said() -> None:
    told = "93.1% ± 1.6% (n = 1,000; from 91.4% to 94.5% with 95% confidence)"
    assert str(Accuracy(931, 1000)) == told


def test_only_random_images_with_a_proposal_count() -> None:
    others = [
        BAD,
        said("5", "dog", queue="uncertain"),
        said("6", "dog", queue=None),
        said("7", "dog", proposed=""),
    ]
    assert accuracy([said("1", "cat"), said("2", "dog"), NO_CLASS, *others]) == Accuracy(1, 3)
    assert accuracy(others) is None


def test_the_newest_word_about_a_random_image_counts_from_whatever_queue() -> None:
    drawn = said("1", "cat")
    later = said("1", "dog", queue="uncertain", when=TOMORROW)
    assert accuracy([drawn]) == Accuracy(1, 1)
    assert accuracy([later, drawn]) == Accuracy(0, 1)


def test_each_run_is_judged_by_what_it_proposed() -> None:
    some = [
        said("1", "dog", proposed="cat"),
        said("1", "dog", proposed="dog", run_id=RUN_2, when=TOMORROW),
        said("2", "ox", proposed="cat", run_id=RUN_2),
    ]
    assert list(accuracy_by_run(some).items()) == [
        (RUN_2, Accuracy(1, 2)),
        (RUN_1, Accuracy(0, 1)),
    ]
    assert accuracy(some) == Accuracy(1, 2)


def test_what_is_confused() -> None:
    some = [
        *(said(f"a{n}", "dog", queue="uncertain") for n in range(3)),
        NO_CLASS,
        said("c", "cat"),
        BAD,
        said("e", "ox", proposed=""),
    ]
    assert confusions(some) == [Confusion("cat", "dog", 3), Confusion("cat", "", 1)]


def test_an_overview_for_people_and_scripts() -> None:
    found = Overview.of([said("1", "cat"), said("2", "dog"), NO_CLASS])
    assert found.lines() == [
        f"3 images: 2 labelled (1 as proposed), 1 of no class, 0 not usable; the latest at {TODAY}",
        f"the random sample says {Accuracy(1, 3)}",
        f"  run {RUN_1}: {Accuracy(1, 3)}",
        "cat is really of no class: 1",
        "cat is really dog: 1",
    ]
    assert found.to_dict()["accuracy"]["accuracy"] == pytest.approx(1 / 3)
    assert found.to_dict()["confusions"][1] == {"proposed": "cat", "label": "dog", "images": 1}
    assert "no corrections yet" in Overview.of([]).lines()[0]
