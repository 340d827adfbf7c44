"""Progress: the numbers of a reading, and what a terminal shows of them."""

import io

import pytest
from rich.console import Console

from pipeline.stages.watching.display import picture
from pipeline.stages.watching.reading import WINDOW_SECONDS, Pace, Reading

TOTALS = {
    "actors": 2,
    "decoded": 120,
    "decode_seconds": 0.6,
    "inferred": 100,
    "infer_seconds": 5,
    "failed": 3,
}


class TestPace:
    def test_counts_from_the_first_result_on(self) -> None:
        pace = Pace(0.0)
        assert [pace.rate(0, now) for now in (0.0, 5.0, 10.0)] == [0, 0, 0]
        assert pace.rate(50, 15.0) == 10

    def test_the_first_reading_has_a_speed(self) -> None:
        """Else a short run would be told to stand still."""
        assert Pace(10.0).rate(50, 15.0) == 10

    def test_a_board_that_is_silent_for_once_changes_nothing(self) -> None:
        pace = Pace(0.0)
        told = [pace.rate(images, now) for images, now in ((50, 5.0), (0, 10.0), (150, 15.0))]
        assert told == [10, 0, 10]

    def test_forgets_what_was_long_ago(self) -> None:
        pace = Pace(0.0)
        slow = [pace.rate(second, float(second)) for second in range(1, 50)]
        assert slow[-1] == pytest.approx(1)
        fast = [pace.rate(49 + 20 * (second - 49), float(second)) for second in range(50, 90)]
        assert fast[0] < 5
        assert fast[int(WINDOW_SECONDS)] == pytest.approx(20)

    def test_a_standstill_shows(self) -> None:
        pace = Pace(0.0)
        for second in range(100):
            rate = pace.rate(min(second, 10), float(second))
        assert rate == 0


class TestReading:
    def test_slow_runs_say_how_long_an_image_takes(self) -> None:
        line = str(Reading({"inferred": 3}, 0.04, expected=4, done=0))
        assert line == "3 of 4 images, 25.0 s/image, 0 failed, 25 s left"

    def test_an_estimate_is_told_as_one(self) -> None:
        line = str(Reading({"inferred": 30}, 2.0, expected=90, done=10, is_certain=False))
        assert line == "40 of about 100 images, 2.0/s, 0 failed, about 30 s left"

    def test_a_pool_that_changes_its_size_is_told_too(self) -> None:
        reading = Reading({"inferred": 3}, 2.0, expected=4, done=0, pool="1 of at most 8 replicas")
        assert str(reading) == "3 of 4 images, 2.0/s, 0 failed, 0 s left; 1 of at most 8 replicas"
        terminal = io.StringIO()
        Console(file=terminal, width=80).print(picture(reading))
        shown = terminal.getvalue().splitlines()
        assert [line.rstrip() for line in shown[1:3]] == [reading.images, reading.pool]

    def test_stages(self) -> None:
        told = Reading(TOTALS, 20.0, expected=None, done=0).stages
        assert told == "decode 5 ms/image, model 50 ms/image, 20 wait for the model"

    @pytest.mark.parametrize(
        ("totals", "told"),
        [({}, "starting: replicas"), ({"actors": 2}, "starting: 2 replicas of the model are")],
    )
    def test_a_start_is_told_as_such(self, totals: dict[str, float], told: str) -> None:
        assert Reading(totals, 0.0, expected=10, done=0).stages.startswith(told)


@pytest.mark.parametrize("width", [1, 8, 30, 80, 300])
@pytest.mark.parametrize("expected", [None, 1000])
def test_no_line_is_longer_than_the_terminal_is_wide(width: int, expected: int | None) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    console.print(picture(Reading(TOTALS, 20.0, expected, done=0)))
    lines = screen.getvalue().splitlines()
    assert len(lines) == (3 if expected else 2)
    assert max(map(len, lines)) <= width
    if width == 80:
        left = " of 1000 images, 20.0/s, 3 failed, 45 s left"
        assert lines[-2].rstrip() == ("100" + left if expected else "100 images, 20.0/s, 3 failed")
