"""What people want left out: the rules of .gitignore, and full paths and URIs."""

from pathlib import Path

import fsspec
import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import InputSpec
from pipeline.output.open_run import OpenRun
from pipeline.plan.diff import Plan
from pipeline.plan.forecast import Forecast
from pipeline.sources.exclusion import Exclusion
from pipeline.sources.inventory import inventory
from pipeline.storage.store import Store
from tests.support.inputs.listing import touch
from tests.support.inputs.world import World

TREE = (
    ".snapshot/a.jpg", "._a.jpg", "2019/raw/a.jpg", "2019/raw/b/c.png", "2020/raw/a.jpg", "a.jpg",
    "a.png", "thumbs/a.jpg", "x/thumbs/b.jpg", "x/y.thumbs/a.jpg", "z/thumbs.jpg",
)  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("*.png", ["2019/raw/b/c.png", "a.png"]),
        ("thumbs", ["thumbs/a.jpg", "x/thumbs/b.jpg"]),
        ("thumbs/", ["thumbs/a.jpg", "x/thumbs/b.jpg"]),
        ("thumbs*", ["thumbs/a.jpg", "x/thumbs/b.jpg", "z/thumbs.jpg"]),
        ("thumbs*/", ["thumbs/a.jpg", "x/thumbs/b.jpg"]),
        ("/thumbs", ["thumbs/a.jpg"]),
        ("./thumbs", ["thumbs/a.jpg"]),
        ("thumbs/*", ["thumbs/a.jpg"]),
        ("thumbs/**", ["thumbs/a.jpg"]),
        ("**/thumbs", ["thumbs/a.jpg", "x/thumbs/b.jpg"]),
        ("**/thumbs/*", ["thumbs/a.jpg", "x/thumbs/b.jpg"]),
        ("*/thumbs", ["x/thumbs/b.jpg"]),
        ("x", ["x/thumbs/b.jpg", "x/y.thumbs/a.jpg"]),
        ("2019/*", ["2019/raw/a.jpg", "2019/raw/b/c.png"]),
        ("2019/**/*.png", ["2019/raw/b/c.png"]),
        ("2019/raw/*.jpg", ["2019/raw/a.jpg"]),
        ("20[12]?/raw", ["2019/raw/a.jpg", "2019/raw/b/c.png", "2020/raw/a.jpg"]),
        ("20[!1]?", ["2020/raw/a.jpg"]),
        (".*", [".snapshot/a.jpg", "._a.jpg"]),
        ("._*", ["._a.jpg"]),
        ("raw", ["2019/raw/a.jpg", "2019/raw/b/c.png", "2020/raw/a.jpg"]),
        ("raw/a.jpg", []),
        ("A.JPG", []),
        ("a", []),
        ("**/2019", ["2019/raw/a.jpg", "2019/raw/b/c.png"]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, gone: list[str]) -> None:
    touch(tmp_path, *TREE, "~last.jpg")
    exclusion = Exclusion((pattern,))
    found = listed(tmp_path, exclusion=exclusion)
    assert found == [*(name for name in sorted(TREE) if name not in gone), "~last.jpg"]
    assert exclusion.count == len(gone)


def listed(root: Path, exclusion: Exclusion) -> list[str]:
    """Names below the root."""
    tables = inventory(InputSpec(uris=(str(root),)), exclusion=exclusion)
    found = [uri for table in tables for uri in table["uri"].to_pylist()]
    return sorted(uri.removeprefix(f"{root}/") for uri in found)


def test_full_paths_and_uris(tmp_path: Path) -> None:
    touch(tmp_path, *TREE)
    assert "a.jpg" in listed(tmp_path, exclusion=Exclusion([f"{tmp_path}/2019", "/elsewhere"]))
    some = listed(tmp_path, exclusion=Exclusion([f"{tmp_path}/2019", f"{tmp_path}/*/raw"]))
    assert not [name for name in some if "raw" in name]
    memory = fsspec.filesystem("memory")
    for name in TREE:
        memory.pipe_file(f"/tree/in/{name}", b"x")
    spec = InputSpec(uris=("memory://tree/in",), exclude=("memory:///tree/in/2*/raw", "thumbs"))
    (table,) = inventory(spec)
    found = {uri.removeprefix("memory:///tree/in/") for uri in table["uri"].to_pylist()}
    assert found == {".snapshot/a.jpg", "._a.jpg", "a.jpg", "a.png", "x/y.thumbs/a.jpg",
                     "z/thumbs.jpg"}  # fmt: skip


def test_globs_and_named_files(tmp_path: Path) -> None:
    """As a shell may have made of a glob."""
    touch(tmp_path, *TREE)
    pattern = InputSpec(uris=(f"{tmp_path}/20*/raw/*.jpg",), exclude=("2019",))
    (table,) = inventory(pattern)
    assert table["uri"].to_pylist() == [f"{tmp_path}/2020/raw/a.jpg"]
    named = InputSpec(uris=(f"{tmp_path}/a.jpg", f"{tmp_path}/a.png"), exclude=("*.png",))
    (table,) = inventory(named)
    assert table["uri"].to_pylist() == [f"{tmp_path}/a.jpg"]


def test_what_lists_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.inventory.refusal_of_credentials", lambda bucket: None)
    names = ["s3://thumbs/a.jpg", "s3://b/thumbs/a.jpg", "https://h.example/x/a.gif?w=1", "c/d.gif",
             "https://thumbs/a.jpg?thumbs"]  # fmt: skip
    (tmp_path / "l.txt").write_text("\n".join(names))
    spec = InputSpec(uris=(str(tmp_path / "l.txt"),), exclude=("thumbs", "*.gif", "*.txt"))
    (table,) = inventory(spec)
    assert table["uri"].to_pylist() == ["s3://thumbs/a.jpg", "https://thumbs/a.jpg?thumbs"]


def test_where_everything_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    with pytest.raises(UsageError, match="exclude leaves out all 2 images"):
        list(inventory(InputSpec(uris=(str(tmp_path),), exclude=("**",))))


@pytest.mark.parametrize("pattern", ["", "/", ".", "./"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"inputs\.exclude"):
        InputSpec(uris=("x",), exclude=(pattern,))


def test_a_plan_says_how_many(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/b.png", "in/c.png")
    exclusion = Exclusion(["*.png"])
    store = Store(str(tmp_path / "out"))
    plan = Plan(World().ledger(), OpenRun(store), exclusion=exclusion)
    plan.survey(inventory(InputSpec(uris=(str(tmp_path / "in"),)), exclusion=exclusion))
    assert str(plan) == "1 new, 2 excluded"
    assert plan.counts.to_dict()["excluded"] == 2
    assert any(line.split() == ["2", "excluded"] for line in Forecast(plan, None).lines())
