"""The queue for other tools, and these tools' own readers of it, where they are installed.
``recorded/`` has what Label Studio's converter makes of annotated tasks."""

import base64
import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.contract.corrections import Correction
from pipeline.contract.errors import UsageError
from pipeline.contract.spec import Tool
from pipeline.output.corrections.adding import read_file
from pipeline.output.corrections.collected import add
from pipeline.output.corrections.exports import export
from pipeline.output.corrections.queue import ReviewedQueue
from pipeline.storage.parquet import write_table
from pipeline.storage.store import Store
from tests.support.commands import call_main
from tests.support.inputs.images import encode
from tests.support.outputs.closed_runs import close_run, rows_of
from tests.support.servers.seaweedfs import Bucket

RECORDED = Path(__file__).parent / "recorded"
CLASSES = ["cat", "dog & 'wolf'", "<ox>"]
NOT_HERE = "it is not installed: see CONTRIBUTING.md"
URIS = [f"s3://bucket/image{number:06d}.jpg" for number in range(5)]


def jpeg(level: int) -> bytes:
    """Of one colour, which tells it from others."""
    return encode(Image.new("RGB", (24, 16), (level, level, level)), "JPEG")


def close_queue(store: Store, *, pictures: bool = True) -> str:
    """Five images, of which three were corrected: another class, a new one, no class. Returns the
    run's id."""
    rows = rows_of(np.tile(np.array([0.5, 0.3, 0.2], np.float32), (5, 1)), CLASSES)
    run_id = close_run(store, rows, CLASSES).run_id
    reasons = ["uncertain"] * 5 + ["random"]
    uris = [*URIS, URIS[4]]
    columns = {
        "uri": uris,
        "reason": reasons,
        "value": [0.2] * 6,
        "label": ["cat"] * 6,
        "score": pa.array([0.5] * 6, pa.float32()),
    }
    if pictures:
        columns["picture"] = [jpeg(40 * URIS.index(uri)) for uri in uris]
    write_table(store, f"runs/{run_id}/review.parquet", pa.table(columns))
    said = [
        Correction(uri=URIS[0], label=CLASSES[1]),
        Correction(uri=URIS[1], label="a new one"),
        Correction(uri=URIS[2], verdict="none"),
    ]
    add(store, said, datetime(2026, 11, 27, tzinfo=UTC))
    return run_id


@pytest.fixture
def output(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "out"))
    close_queue(store)
    return store


def exported(output: Store, tool: Tool, to: Path) -> int:
    return export(ReviewedQueue.read(output), tool, str(to))


def test_the_queue_has_each_image_once(output: Store) -> None:
    queue = ReviewedQueue.read(output)
    assert [one.uri for one in queue.images] == URIS
    assert [one.queue for one in queue.images] == ["uncertain"] * 4 + ["random"]
    assert [one.label for one in queue.images] == [CLASSES[1], "a new one", None, None, None]
    assert queue.classes == [*CLASSES, "a new one"]


def test_tasks_of_label_studio_are_what_is_left(output: Store, tmp_path: Path) -> None:
    assert exported(output, "label-studio", tmp_path / "ls") == 2
    tasks = json.loads((tmp_path / "ls/tasks.json").read_text())
    assert [task["data"]["uri"] for task in tasks] == URIS[3:]
    picture = tasks[0]["data"]["image"].removeprefix("data:image/jpeg;base64,")
    assert base64.b64decode(picture) == jpeg(120)
    view = ET.fromstring((tmp_path / "ls/interface.xml").read_text())
    (choices,) = view.iter("Choices")
    offered = [choice.get("value") for choice in choices]
    assert offered[:4] == [*CLASSES, "a new one"]
    result = tasks[0]["predictions"][0]["result"][0]
    assert result["from_name"] == choices.get("name")
    assert result["value"]["choices"] == ["cat"]


@pytest.mark.parametrize("name", ["label_studio_json.json", "label_studio_min.json"])
def test_what_label_studio_gives_back(output: Store, tmp_path: Path, name: str) -> None:
    """Tasks of this export, annotated; as its own converter writes them."""
    (one, two) = read_file(str(RECORDED / name))
    assert (one.uri, one.label, one.proposed, one.queue) == (URIS[3], "<ox>", "cat", "uncertain")
    assert (two.uri, two.verdict, two.label, two.queue) == (URIS[4], "none", "", "random")
    assert (two.who, two.when) == ("1", "2026-11-27T01:00:05.250Z")
    assert call_main("corrections", output.uri, "--add", RECORDED / name) == 0
    with pytest.raises(UsageError, match="every image in the queue of run 00000000 is corrected"):
        exported(output, "label-studio", tmp_path / "ls")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # its modules earn many
def test_label_studio_reads_it_and_writes_what_is_read(output: Store, tmp_path: Path) -> None:
    ours = pytest.importorskip("label_studio_sdk.label_interface", reason=NOT_HERE)
    converter = pytest.importorskip("label_studio_sdk.converter", reason=NOT_HERE)
    exported(output, "label-studio", tmp_path / "ls")
    text = (tmp_path / "ls/interface.xml").read_text()
    interface = ours.LabelInterface(text)
    tasks = json.loads((tmp_path / "ls/tasks.json").read_text())
    for number, choice in enumerate(["<ox>", "(not one of these)"]):
        task = tasks[number]
        (prediction,) = task.pop("predictions")
        assert interface.validate_task(task)
        assert interface.validate_prediction(prediction)
        (chosen,) = prediction["result"]
        task["annotations"] = [{"id": 1, "result": [chosen | {"value": {"choices": [choice]}}]}]
        assert interface.validate_annotation(task["annotations"][0])
        task["id"] = number
    (tmp_path / "annotated.json").write_text(json.dumps(tasks))
    for form in ("JSON", "JSON_MIN"):
        to = tmp_path / form
        converter.Converter(text, str(tmp_path)).convert(
            str(tmp_path / "annotated.json"), str(to), form, is_dir=False
        )
        said = read_file(str(to / "result.json"))
        assert [(one.uri, one.label, one.verdict) for one in said] == [
            (URIS[3], "<ox>", "label"),
            (URIS[4], "", "none"),
        ]


def test_fiftyone(output: Store, tmp_path: Path) -> None:
    assert exported(output, "fiftyone", tmp_path / "fo") == 5
    labels = json.loads((tmp_path / "fo/labels.json").read_text())["labels"]
    assert [one["label"] for one in labels.values()] == [
        CLASSES[1],
        "a new one",
        "none",
        *["cat"] * 2,
    ]
    assert [one.get("confidence") for one in labels.values()] == [None] * 3 + [0.5] * 2
    for name, one in labels.items():
        picture = (tmp_path / f"fo/data/{name}.jpg").read_bytes()
        assert picture == jpeg(40 * URIS.index(one["attributes"]["uri"]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # its modules earn many
def test_fiftyone_reads_it(output: Store, tmp_path: Path) -> None:
    """Without its data base: by what ``Dataset.from_dir`` asks for the samples."""
    importers = pytest.importorskip("fiftyone.utils.data.importers", reason=NOT_HERE)
    exported(output, "fiftyone", tmp_path / "fo")
    with importers.FiftyOneImageClassificationDatasetImporter(str(tmp_path / "fo")) as samples:
        found = {label.uri: (path, label) for path, _, label in samples}
    assert sorted(found) == URIS
    for number, uri in enumerate(URIS):
        path, label = found[uri]
        assert Path(path).read_bytes() == jpeg(40 * number)
        assert (label.label, label.confidence, label.verdict) == [
            (CLASSES[1], None, "label"),
            ("a new one", None, "label"),
            ("none", None, "none"),
            *[("cat", 0.5, None)] * 2,
        ][number]


def test_hugging_face(output: Store, tmp_path: Path) -> None:
    assert exported(output, "hf", tmp_path / "hf") == 5
    (file,) = (tmp_path / "hf/data").iterdir()
    table = pq.read_table(file)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == table.column_names
    names = features["label"]["names"]
    assert features["proposed"] == features["label"] == {"names": names, "_type": "ClassLabel"}
    numbers = table["label"].to_pylist()
    assert [n if n is None else names[n] for n in numbers] == [CLASSES[1], "a new one", *[None] * 3]
    assert {names[number] for number in table["proposed"].to_pylist()} == {"cat"}
    assert [one["bytes"] for one in table["image"].to_pylist()] == [jpeg(40 * n) for n in range(5)]


def test_hugging_face_reads_it(output: Store, tmp_path: Path) -> None:
    import datasets  # which takes a second

    exported(output, "hf", tmp_path / "hf")
    found: Any = datasets.load_dataset(
        str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache")
    )
    label, proposed = (found.features[name] for name in ("label", "proposed"))
    assert isinstance(label, datasets.ClassLabel)
    assert [None if n is None else label.int2str(n) for n in found["label"]] == [
        CLASSES[1],
        "a new one",
        *[None] * 3,
    ]
    assert proposed.int2str(found["proposed"][:]) == ["cat"] * 5
    assert [round(np.mean(image) / 40) for image in found["image"]] == list(range(5))


def test_without_pictures(tmp_path: Path) -> None:
    """Runs of earlier versions kept none: Label Studio fetches the images itself."""
    output = Store(str(tmp_path / "out"))
    close_queue(output, pictures=False)
    assert exported(output, "label-studio", tmp_path / "ls") == 2
    tasks = json.loads((tmp_path / "ls/tasks.json").read_text())
    assert [task["data"]["image"] for task in tasks] == URIS[3:]
    for tool in ("fiftyone", "hf"):
        with pytest.raises(UsageError, match="kept no pictures"):
            exported(output, tool, tmp_path / tool)


def test_an_object_is_no_empty_directory(output: Store, s3_bucket: Bucket) -> None:
    Store(s3_bucket.uri).write_bytes("to", b"")
    with pytest.raises(UsageError, match="is not empty"):
        export(ReviewedQueue.read(output), "hf", f"{s3_bucket.uri}/to")


def test_what_is_refused(output: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("")
    words = ("corrections", output.uri, "--export", "hf", "--to")
    for to, run, told in (
        ("full", "00000000", "is not empty; name a new directory"),
        ("new", "00000001", "the run 00000001 has no review queue"),
        ("new", "../../x", "--run is '../../x', which no run is called"),
    ):
        assert call_main(*words, tmp_path / to, "--run", run) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert call_main(*words, tmp_path / "new") == 0
    assert "exported: 5 images in the queue of run 00000000" in capsys.readouterr().out
    output.remove("runs/00000000/review.parquet")
    with pytest.raises(UsageError, match=r"no run in .* has a review queue"):
        ReviewedQueue.read(output)
