"""What only the owner of a URL may see is left out of it, and nothing else."""

import pytest

from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.spec import InputSpec, ModelSpec, OutputSpec, RunSpec
from pipeline.contract.spec.relabel import RelabelSpec
from pipeline.contract.urls import has_password, public, row_uri

SECRETS = [
    ("https://user:SENTINEL@host/a.jpg", "https://host/a.jpg"),
    ("HTTPS://user:SENTINEL@host/a.jpg", "HTTPS://host/a.jpg"),
    ("https://SENTINEL@host:8080/a.jpg", "https://host:8080/a.jpg"),
    ("https://u:SENTINEL@x@host/a.jpg", "https://host/a.jpg"),
    ("https://u:SENT/INEL@host/a@b.jpg", "https://b.jpg"),  # rather too little than a password
    ("https://host/a.jpg?sig=SENTINEL", "https://host/a.jpg"),
    ("https://host/a.jpg?x=1&anything=SENTINEL#f", "https://host/a.jpg"),
    ("s3://AKIA:SENT/INEL+/@bucket/key", "s3://bucket/key"),
    ("ftp://user:SENTINEL@host/dir", "ftp://host/dir"),
    ("sftp://SENTINEL@host:22/dir", "sftp://host:22/dir"),
    ("abfs://name:SENTINEL@account/x", "abfs://account/x"),
    ("az://container/x?sv=1&sig=SENTINEL", "az://container/x"),
    ("hf://user:SENTINEL@datasets/x", "hf://datasets/x"),
    ("GET /a?X-Amz-Signature=SENTINEL", "GET /a?X-Amz-Signature=…"),
    ("GET /a?id=7&access_token=SENTINEL", "GET /a?id=7&access_token=…"),
    ("cannot open https://u:SENTINEL@h/m?sig=SENTINEL: denied", "cannot open https://h/m denied"),
    ("('https://h/m?sig=SENTINEL', 'x')", "('https://h/m', 'x')"),
    ("s3://k:SENT?INEL@b/c", "s3://b/c"),
    ("s3://b/c,https://u:SENTINEL@h/a", "s3://b/c,https://h/a"),
    ("simplecache::https://u:SENTINEL@h/a", "simplecache::https://h/a"),
    ("a https://u:SENTINEL@h/a and s3://k:SENTINEL@b/c", "a https://h/a and s3://b/c"),
]


@pytest.mark.parametrize(("text", "expected"), SECRETS)
def test_secrets(text: str, expected: str) -> None:
    assert public(text) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/a@b.jpg",
        "s3://bucket/photo?.jpg",
        "s3://bucket/a?b.jpg",
        "http://host:8080/a@b.jpg",
        "http://host:8080",
        "abfs://container@account.dfs.core.windows.net/a.jpg",
        "wasbs://container@account.blob.core.windows.net/a.jpg",
        "/data/a@b:c?d=e.jpg",
        "C:/a@b",
        "no key=value here",
        "gs://bucket/" + "@" * 10_000,
    ],
)
def test_everything_else_stays(uri: str) -> None:
    assert public(uri) == uri
    assert not has_password(uri)


def test_long_texts_take_no_time() -> None:
    for odd in (
        "a://",
        "s3://x:",
        "http://h?",
        "?token=",
        "a-a.",
        "s3://x:/",
        "https://a?b=",
        "&key",
    ):
        public(odd * 20_000 + " @?=")


@pytest.mark.parametrize(("text", "_"), SECRETS)
def test_messages(text: str, _: str) -> None:
    assert "SENTINEL" not in one_line(ValueError(text))


def test_what_a_manifest_says_of_a_spec() -> None:
    spec = RunSpec(
        inputs=InputSpec(uris=("az://c/x?sig=SENTINEL", "s3://b/x")),
        model=ModelSpec(source="https://user:SENTINEL@host/model?token=SENTINEL"),
        output=OutputSpec(uri="out", top_k=5),
    )
    assert "SENTINEL" not in repr(spec.to_dict())
    assert spec.to_dict()["inputs"]["uris"] == ("az://c/x", "s3://b/x")
    assert spec.to_dict()["model"]["source"] == "https://host/model"
    relabel = RelabelSpec(
        source="old", output="new", head="https://u:SENTINEL@h/head.npz?a=SENTINEL"
    )
    assert "SENTINEL" not in repr(relabel.to_dict())
    assert relabel.to_dict()["head"] == "https://h/head.npz"


def test_inputs_and_outputs_have_no_passwords() -> None:
    uri = "s3://AKIA:SENT/INEL@bucket/x"
    for make in (
        lambda: InputSpec(uris=("s3://b/x", uri)),
        lambda: OutputSpec(uri=uri, top_k=5),
        lambda: RelabelSpec(source="old", output=uri, top_k=1),
        lambda: RelabelSpec(source=uri, output="new", top_k=1),
    ):
        with pytest.raises(UsageError, match=r"has a password in it; give it in the env") as caught:
            make()
        assert "SENT" not in str(caught.value)


SIGNED = (
    "X-Amz-Algorithm=A&X-Amz-Credential=SENTINEL&X-Amz-Date=1&X-Amz-Signature=SENTINEL",
    "x-goog-signature=SENTINEL&x-goog-expires=1",
    "sv=2022&se=2026-01-01&sp=r&sr=b&sig=SENTINEL%3D",
    "Expires=1&Signature=SENTINEL&Key-Pair-Id=K",
    "AWSAccessKeyId=SENTINEL&Signature=SENTINEL&Expires=1",
    "Policy=SENTINEL",
)


@pytest.mark.parametrize("signature", SIGNED)
def test_the_row_of_a_signed_url(signature: str) -> None:
    """The same one tomorrow, when it is signed anew; other images have other rows."""
    assert row_uri(f"https://host/a b#1.jpg?{signature}") == "https://host/a b#1.jpg"
    assert row_uri(f"https://host/a?id=7&{signature}&size=9") == "https://host/a?id=7&size=9"
    assert row_uri(f"HTTP://u:SENTINEL@host/a?{signature}&id=8") == "HTTP://host/a?id=8"


@pytest.mark.parametrize("name", ["token", "access_token", "key", "api_key", "apikey", "secret"])
def test_the_row_of_a_url_with_a_token(name: str) -> None:
    """A hash, since a token may be the whole name of an image."""
    rows = {row_uri(f"https://host/a?x=1&{name}=SENTINEL{number}&y") for number in range(3)}
    assert len(rows) == 3
    assert all(row.startswith(f"https://host/a?x=1&{name}=~") for row in rows)
    assert "SENTINEL" not in repr(rows)


@pytest.mark.parametrize(
    "url",
    ["https://host/a.jpg", "https://host/a?", "https://host/a?key=b/c.jpg", "http://h/?id=1&x",
     "https://host/a?expires=1", "https://host/a?monkey=1&keyboard=2&sp=3", "http://h:80/a@b?c@d",
     "https://host/a?token="],
)  # fmt: skip
def test_the_row_of_any_other_url(url: str) -> None:
    assert row_uri(url) == url
