"""The driver is killed at random points: the same command finishes the run."""

import random
import time

import pytest

from tests.support.outputs.found import check_no_open_run_is_visible, find, parts
from tests.support.processes.scenes import Scene, computed_twice

pytestmark = pytest.mark.ray

MOMENTS = {
    "lease": r"_lease\.json$",
    "record": r"_open/[^/]+/open\.json$",
    "part": r"_open/[^/]+/parts/[^.]+\.parquet$",
    "merging": r"_open/[^/]+/publish/",
    "books closed": r"_open/[^/]+/publish/manifest\.json$",
    "data visible": r"data/",
    "manifest visible": r"runs/.*manifest\.json$",
    "published": r"latest\.json$",
}
"""Names that appear in the output one after the other, for the kills to aim at."""


def kill_at_random(scene: Scene, rng: random.Random) -> str:
    """Start the command and SIGKILL the driver at a random point; where it was met."""
    before = {moment: len(find(scene.output, MOMENTS[moment])) for moment in MOMENTS}
    attempt = scene.start()
    started = time.monotonic()
    if rng.random() < 0.3:
        moment, delay = "anywhere", rng.uniform(0, 30)
    else:
        moment = rng.choice([name for name in MOMENTS if name == "part" or not before[name]])
        delay = rng.choice([0, rng.uniform(0, 0.3), rng.uniform(0, 4)])
        while not attempt.has_ended:
            if len(find(scene.output, MOMENTS[moment])) > before[moment]:
                break
            time.sleep(0.01)
    give_up = time.monotonic() + delay
    while not attempt.has_ended and time.monotonic() < give_up:
        time.sleep(0.01)
    met = "had ended" if attempt.has_ended else f"{time.monotonic() - started:.1f} s"
    attempt.kill()
    return f"{moment} ({met})"


def kill_until_tired(scene: Scene, seed: int, kills: int) -> None:
    """Kill the command again and again, each time checking what a reader sees, then finish it."""
    rng = random.Random(seed)
    committed: set[str] = set()
    for _ in range(kills):
        moment = kill_at_random(scene, rng)
        check_no_open_run_is_visible(scene.output)
        left = set(parts(scene.output))
        print(f"seed {seed}: killed at {moment}, {len(left)} parts")
        if any(name.startswith("runs/") for name in scene.output.names()):
            break
        assert committed <= left, "a committed part has gone"
        committed = left
    manifest = scene.finish()
    print(f"seed {seed}: finished in attempt {manifest['attempts']}, {computed_twice(manifest)} "
          f"images computed again, {manifest['plan']['finished']} taken over")  # fmt: skip
    assert computed_twice(manifest) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_points(on_disk: Scene, seed: int) -> None:
    kill_until_tired(on_disk, seed, kills=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 13))
def test_killed_at_random_points_on_s3(on_s3: Scene, seed: int) -> None:
    kill_until_tired(on_s3, seed, kills=4)
