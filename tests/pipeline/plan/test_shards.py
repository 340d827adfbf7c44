"""Shards counted as images: by footers, by what earlier runs know, by what was read so far."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.contract.schema import LISTING
from pipeline.output.open_run import OpenRun
from pipeline.plan.diff import Plan
from pipeline.plan.forecast import Forecast
from pipeline.plan.shards import Estimate, ShardImages
from pipeline.storage.store import Store
from tests.support.inputs.world import World

KINDS = {"tar": "webdataset", "parquet": "parquet", "jpg": "image"}


Listed = tuple[str, int | None, int | None]


def listing(*objects: Listed) -> pa.Table:
    """Of names, sizes, and images as far as they are known."""
    rows = [
        {"uri": name, "kind": KINDS[name.rpartition(".")[2]], "source_version": "A",
         "size_bytes": size, "images": images}
        for name, size, images in objects
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=LISTING)


def shards(*objects: Listed) -> ShardImages:
    found = ShardImages()
    found.add(listing(*objects))
    return found


def test_footers_tell() -> None:
    assert shards().estimate({}) == Estimate(0, is_certain=True)
    both = shards(("a.parquet", 100, 7), ("b.parquet", 100, 5))
    assert both.estimate({}) == Estimate(12, is_certain=True)
    assert shards(("a.parquet", 100, 7), ("b.tar", 100, None)).estimate({}) is None


def test_unchanged_tars_of_earlier_runs_tell_about() -> None:
    found = shards(("new.tar", 3000, None), ("a.parquet", 9, 7))
    found.learn(listing(("old.tar", 1000, None), ("x.parquet", 1, 50)), np.array([10, 50]))
    assert found.estimate({}) == Estimate(37, is_certain=False)
    assert str(found.estimate({})) == "about 37"


def test_what_was_read_so_far_tells_about_and_in_the_end_exactly() -> None:
    found = shards(("a.tar", 6000, None), ("b.tar", 4000, None))
    told = [
        found.estimate({"members": members, "member_bytes": size, "shards_read": finished})
        for members, size, finished in ((0, 0, 0), (1, 1000, 0), (9, 6000, 1), (15, 10_000, 2))
    ]
    assert told == [None, Estimate(10, False), Estimate(15, False), Estimate(15, True)]
    twice = found.estimate({"members": 30, "member_bytes": 20_000, "shards_read": 3})
    assert twice == Estimate(30, False)  # a task that was repeated


def test_shards_of_unknown_size() -> None:
    found = shards(*((f"{n}.tar", None, None) for n in range(4)))
    assert found.estimate({"members": 3, "member_bytes": 10}) is None
    assert found.estimate({"members": 8, "shards_read": 1}) == Estimate(32, False)


class TestPlan:
    def plan(self, tmp_path: Path, world: World, *objects: Listed) -> Plan:
        plan = Plan(world.ledger(), OpenRun(Store(str(tmp_path))))
        plan.survey([listing(*objects)])
        return plan

    def test_images_to_do(self, tmp_path: Path) -> None:
        plan = self.plan(tmp_path, World(), ("a.jpg", 1, None), ("b.parquet", 99, 5))
        assert plan.images_to_do() == Estimate(6, is_certain=True)
        assert str(plan) == "2 new (1 of them shards with 5 images)"
        forecast = Forecast(plan, 2.0)
        assert forecast.seconds == 3
        assert forecast.to_dict()["shard_images"] == 5
        assert "1  of these, shards to read, with 5 images" in "\n".join(forecast.lines())
        assert forecast.lines()[-1] == "about 0.1 minutes at 2.0 images/s"

    def test_nothing_is_known_of_the_first_tar(self, tmp_path: Path) -> None:
        plan = self.plan(tmp_path, World(), ("a.jpg", 1, None), ("b.tar", 99, None))
        assert plan.images_to_do() is None
        forecast = Forecast(plan, 2.0)
        assert (forecast.seconds, forecast.to_dict()["shard_images"]) == (0.5, None)
        assert forecast.lines()[-1] == "about 0.0 minutes at 2.0 images/s, and the shards"
