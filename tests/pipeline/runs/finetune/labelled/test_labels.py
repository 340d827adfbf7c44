"""Labels out of files, columns and directories; what is refused, and in which words."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.contract.corrections import Correction
from pipeline.contract.errors import UsageError
from pipeline.contract.spec import FinetuneSpec
from pipeline.output.corrections.collected import add
from pipeline.runs.finetune.labelled.kinds import as_label, check_classes
from pipeline.runs.finetune.labelled.labels import Labels, directory_of, read_labels
from pipeline.storage.store import Store
from tests.support.commands import REPOSITORY

RECORDED = REPOSITORY / "tests/pipeline/output/corrections/recorded"
"""What Label Studio's converter makes of annotated tasks."""
SPEC = FinetuneSpec(outputs=("o",), output="m", model="s", label_from="directory")


def told(file: str) -> dict[str, str | None]:
    """What a file says, by image."""
    return {one.uri: one.label or None for one in read_labels(file)}


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


class TestFiles:
    def test_csv_jsonl_and_parquet_say_the_same(self, tmp_path: Path) -> None:
        rows = [{"uri": "s3://b/1.jpg", "label": "cat"}, {"uri": "s3://b/2.jpg", "label": "dog"}]
        expected = {row["uri"]: row["label"] for row in rows}
        csv = "uri,label\n" + "".join(f"{row['uri']},{row['label']}\n" for row in rows)
        assert told(write(tmp_path / "l.csv", csv)) == expected
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        assert told(write(tmp_path / "l.jsonl", lines)) == expected
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "l.parquet")
        assert told(str(tmp_path / "l.parquet")) == expected

    def test_later_files_overrule_earlier_ones(self, tmp_path: Path) -> None:
        first = write(tmp_path / "1.csv", "uri,label\n/a.jpg,cat\n/b.jpg,dog\n")
        second = write(tmp_path / "2.csv", "uri,label\n/b.jpg,wolf\n")
        spec = FinetuneSpec(outputs=("o",), output="m", model="s", labels=(first, second))
        assert Labels.read(spec).named == {"/a.jpg": "cat", "/b.jpg": "wolf"}

    def test_corrections_overrule_labels_and_the_newest_counts(self, tmp_path: Path) -> None:
        head = "uri,label,verdict,when\n"
        new = "/a.jpg,cat,label,2026-02-01\n/b.jpg,,none,2026-02-01\n/c.jpg,,bad_picture,\n"
        old = "/a.jpg,dog,label,2026-01-01\n/b.jpg,dog,label,2026-01-01\n"
        plain = "".join(f"/{name}.jpg,ox\n" for name in "abd")
        files = (
            write(tmp_path / "new.csv", head + new),
            write(tmp_path / "old.csv", head + old),
            write(tmp_path / "plain.csv", "uri,label\n" + plain),
        )
        out = Store(str(tmp_path / "out"))
        add(out, [Correction(uri="/a.jpg", label="hen")], datetime(2026, 11, 27, tzinfo=UTC))
        for some in (files, files[::-1]):
            labels = Labels.read(replace(SPEC, labels=some))
            assert labels.named == {"/a.jpg": "cat", "/b.jpg": None, "/c.jpg": None, "/d.jpg": "ox"}
            assert Labels.read(replace(SPEC, labels=some), [out]).named["/a.jpg"] == "hen"
            aside = replace(SPEC, labels=some, corrections=False)
            assert Labels.read(aside, [out]).named == labels.named
        assert labels.of("/in/b.jpg", None) == "in"
        assert labels.of("/b.jpg", None) is None, "not even by its directory"

    def test_corrections_in_any_format(self, tmp_path: Path) -> None:
        row = {
            "uri": "/a.jpg", "label": None, "verdict": "none", "score": 0.5,
            "when": datetime(2026, 1, 1, tzinfo=UTC),
        }  # fmt: skip
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "c.parquet")
        (found,) = read_labels(str(tmp_path / "c.parquet"))
        assert (found.verdict, found.score) == ("none", 0.5)
        assert found.when == "2026-01-01T00:00:00.000Z"

    @pytest.mark.parametrize("name", ["label_studio_json.json", "label_studio_min.json"])
    @pytest.mark.parametrize("before", ["", "\n \t", "\ufeff"])
    def test_what_label_studio_exports(self, name: str, before: str, tmp_path: Path) -> None:
        file = write(tmp_path / "export", before + (RECORDED / name).read_text())
        said = {"s3://bucket/image000003.jpg": "<ox>", "s3://bucket/image000004.jpg": None}
        earlier = write(tmp_path / "l.csv", "uri,label\ns3://bucket/image000004.jpg,cat\n")
        assert told(file) == said
        assert Labels.read(replace(SPEC, labels=(file, earlier))).named == said

    def test_an_export_that_is_none(self, tmp_path: Path) -> None:
        flat = {"uri": "/a.jpg", "label": "cat"}
        for tasks, complaint in (
            ([flat, flat | {"label": "dog"}], "two labels, namely /a.jpg: cat and dog"),
            ([[flat]], "task 0 is no object; export it from Label Studio as JSON or JSON-MIN"),
        ):
            with pytest.raises(UsageError, match=complaint):
                read_labels(write(tmp_path / "l.json", json.dumps(tasks)))

    def test_a_review_queue_counts_where_it_was_corrected(self, tmp_path: Path) -> None:
        head = "uri,reason,value,label,score,correct_label\n"
        rows = "/a.jpg,uncertain,0.1,cat,0.4,dog\n/b.jpg,uncertain,0.2,cat,0.4,\n"
        assert told(write(tmp_path / "q.csv", head + rows)) == {"/a.jpg": "dog"}

    def test_a_review_queue_that_nobody_corrected_is_no_truth(self, tmp_path: Path) -> None:
        queue = write(tmp_path / "q.csv", "uri,reason,value,label\n/a.jpg,uncertain,0.1,cat\n")
        with pytest.raises(UsageError, match=r"what the model proposed; .* column correct_label"):
            read_labels(queue)

    def test_names_as_people_write_them(self, tmp_path: Path) -> None:
        """Relative to the file, with a scheme, with a token, with spaces; a tar's member as is."""
        text = (
            "uri,label\n"
            "pictures/a.jpg, cat \n"
            f"file://{tmp_path}/b.jpg,dog\n"
            "https://host/c.jpg?X-Amz-Signature=1,dog\n"
            "/x.tar#./d.jpg,ox\n"
        )
        assert told(write(tmp_path / "l.csv", text)) == {
            f"{tmp_path}/pictures/a.jpg": "cat",
            f"{tmp_path}/b.jpg": "dog",
            "https://host/c.jpg": "dog",
            "/x.tar#./d.jpg": "ox",
        }

    def test_ends_of_uris(self, tmp_path: Path) -> None:
        text = "uri_suffix,label\n/cat/1.jpg,cat\n1.jpg,other\nx.tar#1.jpg,dog\n"
        labels = Labels(told(write(tmp_path / "l.csv", text)), None, uses_directory=False)
        assert labels.of("s3://b/cat/1.jpg", None) == "cat"
        assert labels.of("/in/dog/1.jpg", None) == "other"
        assert labels.of("/in/x.tar#1.jpg", None) == "dog"
        assert labels.of("/in/cat/11.jpg", None) is None

    def test_two_labels_for_an_image_are_refused(self, tmp_path: Path) -> None:
        rows = "".join(f"/{n}.jpg,cat\n/{n}.jpg,dog\n/{n}.jpg,dog\n" for n in range(5))
        twice = write(tmp_path / "l.csv", f"uri,label\n{rows}/x.jpg,ox\n/x.jpg,ox\n")
        complaint = r"gives 5 images two labels, such as /0\.jpg: cat and dog, /1.* and dog, /2"
        with pytest.raises(UsageError, match=complaint):
            read_labels(twice)

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("name,kind\na,b\n", "has the columns name, kind; a file of labels has uri and label"),
            ("uri,label\n,cat\n", "row 1 has the label 'cat', but names no image"),
            ('{"uri": "/a", "label": [1]}\n', r"a label is \[1\]; it must be a text or a whole"),
            ('{"uri": "/a", "label": 1.5}\n', "a label is 1.5"),
            ("uri,label,verdict\n/a,cat,label\n/b,cat,none\n", "row 2 is no correction: label is"),
            ("uri,label,verdict\n/a,cat,label\n/a,,none\n", "namely /a: cat and none"),
            ("uri,label\ns3://user:word@b/a,cat\n", "row 1 names no image: .* a password in it"),
        ],
    )
    def test_what_is_no_file_of_labels(self, text: str, complaint: str, tmp_path: Path) -> None:
        name = "l.jsonl" if text.startswith("{") else "l.csv"
        with pytest.raises(UsageError, match=complaint):
            read_labels(write(tmp_path / name, text))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"l\.csv does not exist; check finetune\.labels"):
            read_labels(str(tmp_path / "l.csv"))


@pytest.mark.parametrize(
    ("value", "label"),
    [("cat", "cat"), (" ", None), (None, None), (7, "7"), (7.0, "7"), (float("nan"), None)],
)
def test_a_cell_as_a_label(value: object, label: str | None) -> None:
    assert as_label(value) == label


@pytest.mark.parametrize(
    ("uri", "directory"),
    [
        ("/photos/cat/1.jpg", "cat"),
        ("s3://bucket/cat/1.jpg", "cat"),
        ("s3://bucket/1.jpg", None),
        ("/1.jpg", None),
        ("s3://bucket/cat/x.tar#dog/1.jpg", "dog"),
        ("s3://bucket/cat/x.tar#./dog/1.jpg", "dog"),
        ("s3://bucket/cat/x.tar#1.jpg", None),
        ("s3://bucket/cat/x.tar#./1.jpg", None),
        ("s3://bucket/cat/x.parquet#12", None),
        ("/photos/cat/no#1.jpg", "cat"),
        ("https://host/cat/1.jpg?path=/dog/", "cat"),
        ("https://host/1.jpg", None),
    ],
)
def test_the_directory_of_an_image(uri: str, directory: str | None) -> None:
    assert directory_of(uri) == directory


def test_a_file_overrules_a_directory_or_a_column() -> None:
    named = {"/in/cat/1.jpg": "dog"}
    of_directory = Labels(named, None, uses_directory=True)
    assert of_directory.of("/in/cat/1.jpg", None) == "dog"
    assert of_directory.of("/in/cat/2.jpg", None) == "cat"
    of_column = Labels(named, "kind", uses_directory=False)
    assert of_column.of("/in/cat/1.jpg", "ox") == "dog"
    assert of_column.of("/in/cat/2.jpg", "ox") == "ox"
    assert of_column.of("/in/cat/2.jpg", None) is None


def test_a_held_out_set_is_labels_too(tmp_path: Path) -> None:
    """Over those of the other files, and under what people said; by whole names and by ends."""
    told = write(tmp_path / "l.csv", "uri,label\n/in/a.jpg,cat\n/in/b.jpg,cat\n/in/c.jpg,cat\n")
    held = write(tmp_path / "v.csv", "uri_suffix,label\na.jpg,dog\nsub/x.jpg,ox\n")
    again = write(tmp_path / "w.csv", "uri,label\n/in/b.jpg,dog\n/in/c.jpg,dog\n")
    out = Store(str(tmp_path / "out"))
    add(out, [Correction(uri="/in/c.jpg", verdict="none")], datetime(2026, 11, 27, tzinfo=UTC))
    labels = Labels.read(replace(SPEC, labels=(told,), val_labels=(held, again)), [out])
    assert labels.of("/in/b.jpg", None) == "dog"
    assert labels.of("/in/c.jpg", None) is None
    assert labels.of("s3://b/sub/x.jpg", None) == "ox"
    sides = {name: labels.is_held_out(f"/in/{name}.jpg") for name in ("a", "b", "c", "d", "sub/x")}
    assert sides == {"a": True, "b": True, "c": True, "d": False, "sub/x": True}
    assert labels.keys_of("/in/a.jpg") == {"/in/a.jpg", "a.jpg"}, "named twice, in two ways"
    nothing = write(tmp_path / "n.csv", "uri,label\n")
    with pytest.raises(UsageError, match="val_labels names no image"):
        Labels.read(replace(SPEC, val_labels=(nothing,)))


def test_classes_are_in_order_of_name() -> None:
    assert check_classes(["b", "a", "B", "b", "a", "B"]) == ("B", "a", "b")
    with pytest.raises(UsageError, match=r"of 1 classes \(only a\); it takes two"):
        check_classes(["a", "a"])
    few = [*"aabb", "c", "d", "e", "f"]
    told = "4 of 6 classes have fewer than 2 labelled images, such as c, d, e; label more"
    with pytest.raises(UsageError, match=told):
        check_classes(few)
