"""Decode and Predict as functions: what they take, what they refuse, and how they say so."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import Decode, Predict, UsageError
from tests.support.inputs.images import encode, noise

GOOD = [encode(noise(seed=number), "JPEG") for number in range(3)]
PIXELS = 32 * 32 * 3


@pytest.fixture(scope="module")
def decode(checkpoint: Path) -> Decode:
    return Decode(model=checkpoint)


@pytest.fixture(scope="module")
def predict(checkpoint: Path) -> Predict:
    return Predict(checkpoint, top_k=2, with_embeddings=True, batch_size=2, dtype="float32")


def whole(tables: Iterator[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables)


def decoded(decode: Decode, **columns: Any) -> pa.Table:
    return whole(decode(pa.table(columns)))


@pytest.fixture(scope="module")
def rows(decode: Decode) -> pa.Table:
    """What Decode makes of good images and a bad one."""
    images = [GOOD[0], b"no image", *GOOD[1:]]
    return decoded(decode, bytes=images, uri=list("abcd"), id=[1, 2, 3, 4])


class TestDecode:
    def test_rows_keep_their_order_and_their_columns(self, decode: Decode) -> None:
        images = [GOOD[0], b"no image", None, *GOOD[1:]] * 20
        table = decoded(decode, bytes=images, id=list(range(100)), url=["x"] * 100)
        assert table["id"].to_pylist() == list(range(100))
        codes = [None, "not_an_image", "empty_file", None, None]
        assert table["error_code"].to_pylist() == codes * 20
        assert table["size_bytes"].to_pylist()[:3] == [len(GOOD[0]), 8, 0]
        lengths = [len(one) if one else None for one in table["_pixels"].to_pylist()]
        assert lengths == [PIXELS, None, None, PIXELS, PIXELS] * 20
        assert table["uri"].to_pylist() == ["x"] * 100
        assert table.column_names.count("id") == 1
        assert "bytes" not in table.column_names

    def test_tables_are_small_whatever_the_batch(self, decode: Decode) -> None:
        batch = {"image": np.array([GOOD[0]] * 70, object)}
        assert [len(table) for table in decode(batch)] == [32, 32, 6]

    def test_images_without_names_have_none(self, decode: Decode) -> None:
        assert decoded(decode, jpg=GOOD)["uri"].to_pylist() == [None] * 3
        table = decoded(decode, jpg=GOOD, uri=["a", None, ""])
        assert table["uri"].to_pylist() == ["a", None, ""]

    def test_secrets_of_urls_stay_out_of_the_rows(self, decode: Decode) -> None:
        table = decoded(decode, jpg=GOOD[:1], uri=["https://host/a.jpg?X-Amz-Signature=5"])
        assert table["uri"].to_pylist() == ["https://host/a.jpg"]

    def test_names_that_name_nothing_are_rows(self, decode: Decode, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(GOOD[0])
        uris = [str(tmp_path / "a.jpg"), None, " ", str(tmp_path / "b.jpg"), "nope://x", "a\0b",
                "http://127.0.0.1/a.jpg"]  # fmt: skip
        table = decoded(decode, uri=uris, id=list(range(len(uris))))
        assert table["status"].to_pylist() == ["ok"] + ["failed"] * 6
        assert table["error_code"].to_pylist()[1:5] == [
            "url_refused", "url_refused", "not_found", "url_refused",
        ]  # fmt: skip
        assert table["uri"].to_pylist()[1] is None
        assert table["id"].to_pylist() == list(range(len(uris)))

    def test_datasets_of_hugging_face(self, decode: Decode) -> None:
        struct = [{"bytes": data, "path": None} for data in GOOD]
        assert decoded(decode, image=struct)["status"].to_pylist() == ["ok"] * 3

    def test_columns_by_name(self, checkpoint: Path) -> None:
        named = Decode(model=checkpoint, image_column="photo", uri_column="name")
        table = decoded(named, photo=GOOD, name=["a", "b", "c"], uri_=[1, 2, 3])
        assert table["uri"].to_pylist() == ["a", "b", "c"]
        with pytest.raises(UsageError, match=r"no column of encoded images \(photo\).*bytes \(bin"):
            decoded(named, bytes=GOOD, name=["a", "b", "c"])

    @pytest.mark.parametrize(
        "column", [np.zeros((2, 4)), np.array([1, 2]), np.array([{"a": 1}, {"a": 2}])]
    )
    def test_decoded_images_are_no_bytes(self, decode: Decode, column: Any) -> None:
        with pytest.raises(UsageError, match="no column of encoded images"):
            whole(decode({"image": column}))

    def test_a_column_that_the_rows_have_themselves_is_refused(self, decode: Decode) -> None:
        with pytest.raises(UsageError, match=r"too: status, width; .*rename_columns\(\{'status'"):
            decoded(decode, bytes=GOOD, status=[1] * 3, width=[1] * 3)

    def test_no_rows_are_no_trouble(self, decode: Decode) -> None:
        assert list(decode(pa.table({"bytes": pa.array([], pa.binary())}))) == []

    def test_it_travels(self, decode: Decode) -> None:
        again = pickle.loads(pickle.dumps(decode))
        assert decoded(again, bytes=GOOD) == decoded(decode, bytes=GOOD)

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"decode": "gpu"}, "decode gpu is for whole runs alone; use fast"),
            ({"max_pixel": 3}, "there is no setting max_pixel; did you mean max_pixels?"),
            ({"top_k": 3}, "there is no setting top_k"),
            ({"max_bytes": -1}, "max_bytes is -1; it must be 1 or more"),
            ({"model": "/nowhere"}, "/nowhere"),
        ],
    )
    def test_settings(self, checkpoint: Path, settings: dict[str, Any], said: str) -> None:
        with pytest.raises(UsageError) as found:
            Decode(**{"model": checkpoint, **settings})
        assert said in str(found.value)

    def test_limits(self, checkpoint: Path) -> None:
        strict = Decode(model=checkpoint, max_bytes=10, max_pixels=10)
        assert decoded(strict, bytes=GOOD)["error_code"].to_pylist() == ["too_large"] * 3


class TestPredict:
    def test_formats_of_batches_are_alike(self, predict: Predict, rows: pa.Table) -> None:
        expected = predict(rows)
        assert expected["status"].to_pylist() == ["ok", "failed", "ok", "ok"]
        assert [len(ids or ()) for ids in expected["topk_ids"].to_pylist()] == [2, 0, 2, 2]
        assert expected["embedding"].null_count == 1
        assert "_pixels" not in expected.column_names
        as_numpy = {name: rows[name].to_numpy() for name in rows.column_names}
        for batch in (as_numpy, rows.to_pandas()):
            found = predict(batch)
            assert found.schema.names == expected.schema.names
            assert found.drop_columns(["id"]) == expected.drop_columns(["id"])

    def test_failed_rows_alone_and_no_rows(self, predict: Predict, rows: pa.Table) -> None:
        assert predict(rows.slice(1, 1))["label"].to_pylist() == [None]
        assert predict(rows.slice(0, 0)).schema == predict(rows).schema

    def test_columns_are_those_that_are_asked_for(self, checkpoint: Path, rows: pa.Table) -> None:
        vectors = Predict(model=checkpoint, top_k=None, embeddings=True)(rows)
        assert "label" not in vectors.column_names
        assert vectors["embedding"].type.list_size == 32

    def test_what_decode_did_not_make_is_refused(self, predict: Predict, rows: pa.Table) -> None:
        with pytest.raises(UsageError, match="no column status; Predict takes what Decode makes"):
            predict({"uri": np.array(["a"], object)})
        with pytest.raises(UsageError, match="results have, too: label;"):
            predict(rows.append_column("label", pa.array(list("abcd"))))
        other = rows.set_column(
            rows.schema.get_field_index("_pixels"), "_pixels", pa.array([b"123", None, None, None])
        )
        with pytest.raises(UsageError, match="the pixels are not of 32 x 32"):
            predict(other)

    def test_it_is_given_as_a_class(self, predict: Predict) -> None:
        with pytest.raises(TypeError, match=r"give its class, as in ds\.map_batches\(Predict"):
            pickle.dumps(predict)

    def test_settings(self, checkpoint: Path) -> None:
        with pytest.raises(UsageError, match="no setting topk; did you mean top_k"):
            Predict(model=checkpoint, topk=3)
        with pytest.raises(UsageError, match="nothing to write: give top_k for labels"):
            Predict(model=checkpoint, top_k=None)
