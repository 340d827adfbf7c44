"""Pages of a listing, held against botocore's own reading of the same answers."""

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import botocore.handlers
import botocore.session
import pytest
from botocore.parsers import RestXMLParser

import pipeline.storage.objects.s3.pages as pages
from pipeline.contract.errors import FetchError
from pipeline.storage.objects.s3.pages import list_objects, parse_page
from tests.support.inputs.listing import KEYS
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.faults import Faults
from tests.support.servers.seaweedfs import Bucket

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def page(*contents: str, more: str = "", namespace: str = NAMESPACE) -> bytes:
    attribute = f' xmlns="{namespace}"' if namespace else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult{attribute}>'
        f"<Name>b</Name><Prefix/><EncodingType>url</EncodingType>{''.join(contents)}"
        f"{more or '<IsTruncated>false</IsTruncated>'}</ListBucketResult>"
    ).encode()


def contents(key: str, size: int = 3, etag: str = "&quot;abc&quot;") -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>2026-11-26T00:00:00.000Z</LastModified>"
        f"<ETag>{etag}</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


ENCODED = [
    "a+b.jpg",
    "a%2Bb.jpg",
    "%E2%82%AC.jpg",
    "a%0Ab.jpg",
    "x%252F.jpg",
    "a//b.jpg",
    "%01.jpg",
]


def read_by_botocore(xml: bytes) -> list[tuple[str, int, str]]:
    shape = botocore.session.get_session().get_service_model("s3")
    output = shape.operation_model("ListObjectsV2").output_shape
    answer = {"body": xml, "status_code": 200, "headers": {}}
    theirs: dict[str, Any] = RestXMLParser().parse(answer, output)
    context = {"encoding_type_auto_set": True}
    botocore.handlers.decode_list_object_v2(theirs, context)
    return [(o["Key"], o["Size"], o["ETag"].strip('"')) for o in theirs["Contents"]]


def test_a_page_is_read_as_botocore_reads_it() -> None:
    xml = page(*(contents(key, n) for n, key in enumerate(ENCODED)))
    assert parse_page(xml).objects == read_by_botocore(xml)
    assert parse_page(xml).objects[0][0] == "a b.jpg"


ORDINARY = [contents(f"{number}.jpg", number) for number in range(3)]
BARE = "<Contents><ETag>e</ETag><Size>7</Size><Key>bare.jpg</Key></Contents>"


@pytest.mark.parametrize(
    "odd",
    [
        contents("a&amp;b.jpg"),
        contents("&#x63;.jpg"),
        contents("<![CDATA[<Key>]]>.jpg"),
        contents("a<!-- b -->c.jpg"),
        contents("caf\u00e9.jpg"),
        contents("a.jpg", etag="&#34;abc&#34;"),
        contents("a.jpg", etag="no-marks"),
        contents("a.jpg").replace("<Size>", "<Size unit='byte'>"),
        contents("a.jpg").replace("STANDARD", "GLACIER</StorageClass>\n <StorageClass>"),
        "<!--" + contents("left-out.jpg") + "-->",
        "<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>",
        "\n  text between objects \n",
        "<?processed here?>",
        BARE,
    ],
)
def test_an_odd_object_or_what_lies_between_two_is_read_as_botocore_reads_it(odd: str) -> None:
    for at in range(len(ORDINARY) + 1):
        xml = page(*ORDINARY[:at], odd, *ORDINARY[at:])
        assert parse_page(xml).objects == read_by_botocore(xml)


def test_of_objects_that_look_alike_only_the_first_is_parsed() -> None:
    """What a profiler sees: a call for each tag of what is parsed."""
    calls: list[str] = []
    sys.setprofile(lambda frame, event, called: calls.append(event) if event == "call" else None)
    try:
        found = parse_page(page(*map(contents, map(str, range(1000)))))
    finally:
        sys.setprofile(None)
    assert len(found.objects) == 1000
    assert len(calls) < 2000  # there are 12,000 tags


@pytest.mark.parametrize("namespace", [NAMESPACE, "", "http://elsewhere/"])
def test_every_namespace(namespace: str) -> None:
    xml = page(contents("a.jpg"), namespace=namespace)
    assert parse_page(xml).objects == [("a.jpg", 3, "abc")]


def test_a_namespace_may_be_written_as_a_prefix() -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    plain = page(contents("a%2Bb.jpg"), contents("c.jpg", 5), more=more)
    prefixed = re.sub(rb"<(/?)(?=[A-Z])", rb"<\1ns2:", plain).replace(b"xmlns", b"xmlns:ns2")
    assert b"</ns2:Key>" in prefixed
    assert parse_page(prefixed) == parse_page(plain)
    assert parse_page(prefixed).objects == [("a+b.jpg", 3, "abc"), ("c.jpg", 5, "abc")]


def test_names_are_not_decoded_where_the_server_does_not_encode_them() -> None:
    xml = page(contents("a+b%20c.jpg")).replace(b"<EncodingType>url</EncodingType>", b"")
    assert parse_page(xml).objects[0][0] == "a+b%20c.jpg"


def test_what_an_entry_lacks_is_not_taken_from_its_neighbours() -> None:
    bare = "<Contents><Key>b.jpg</Key><Owner><ID>7</ID></Owner></Contents>"
    found = parse_page(page(contents("a.jpg", 3), bare, contents("c.jpg", 5))).objects
    assert found == [("a.jpg", 3, "abc"), ("b.jpg", 0, ""), ("c.jpg", 5, "abc")]


def test_lines_and_blanks_between_elements_are_nothing() -> None:
    spread = page(contents("a.jpg")).replace(b"><", b">\n  <")
    assert parse_page(spread).objects == [("a.jpg", 3, "abc")]


def test_text_in_pieces_is_one_key() -> None:
    xml = page(contents("a&amp;b<!-- or -->&#x63;<![CDATA[<d>]]>" + "e" * 20_000))
    assert parse_page(xml).objects == [("a&bc<d>" + "e" * 20_000, 3, "abc")]


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (page(contents("a.jpg"))[:-30], "cut off"),
        (b"", "cut off"),
        (b"<a><Contents>", "cut off"),
        (b"<html><body>Please log in</body></html>", "html"),
        (page(more="<IsTruncated>true</IsTruncated>"), "how its listing goes on"),
        (page(contents("a</Key><Key>b"), contents("c").replace("<Key>c</Key>", "")), "two names"),
        (page(contents("a"), "<Size>3</Size>"), "odd listing"),
        (page(contents("a").replace(">3<", ">three<")), "odd listing: .*three"),
    ],
)
def test_what_is_not_a_whole_page_is_never_the_end(xml: bytes, reason: str) -> None:
    with pytest.raises(FetchError, match=reason):
        parse_page(xml)


def test_a_listing_that_turns_in_circles_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    again = parse_page(page(contents("a.jpg"), more=more))
    monkeypatch.setattr(pages, "_ask", lambda bucket, path: again)
    with pytest.raises(OSError, match="again and again"):
        list(list_objects("b", ""))


def keys(bucket: Bucket, prefix: str = "") -> Iterator[str]:
    return (key for key, _, _ in list_objects(bucket.name, prefix))


def test_odd_keys_and_prefixes(s3_bucket: Bucket) -> None:
    for key in KEYS:
        s3_bucket.put(key, key.encode())
    theirs = {
        (entry["Key"], entry["Size"], entry["ETag"].strip('"')) for entry in s3_bucket.objects()
    }
    ours = set(list_objects(s3_bucket.name, ""))
    assert ours == theirs
    for key in KEYS:
        assert key in keys(s3_bucket, key[: len(key) // 2 + 1])


def test_many_pages_are_asked_for_at_once_and_keep_their_order(
    s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This server has an order of its own, in which ``1/x`` comes before ``1-x``."""
    monkeypatch.setattr(pages, "PAGE_KEYS", 5)
    for number in range(60):
        s3_bucket.put(f"p/{number // 7}/{number:03d}.jpg", b"1")
        s3_bucket.put(f"p/{number // 7}-x.jpg", b"1")
    s3_bucket.put("pp/other.jpg", b"1")
    theirs = [entry["Key"] for entry in s3_bucket.objects() if entry["Key"].startswith("p/")]
    assert len(theirs) == 69
    assert list(keys(s3_bucket, "p/")) == theirs


LISTINGS = "list-type"
FAULTS: list[Callable[[int], Faults]] = [
    lambda seed: Faults(pattern=LISTINGS, seed=seed, slow_down=0.5),
    lambda seed: Faults(pattern=LISTINGS, seed=seed, internal_error=0.5),
    lambda seed: Faults(pattern=LISTINGS, seed=seed, reset=0.5),
    lambda seed: Faults(pattern=LISTINGS, seed=seed, truncate=0.5),
]


@pytest.mark.parametrize(
    "of_seed", FAULTS, ids=["slow_down", "internal_error", "reset", "truncate"]
)
def test_what_passes_is_asked_again(
    s3_bucket: Bucket, fault_proxy: FaultProxy, of_seed: Callable[[int], Faults]
) -> None:
    s3_bucket.put("a.jpg", b"1")
    seeds = map(of_seed, range(100))
    faults = next(faults for faults in seeds if faults.draw("", 1) and not faults.draw("", 2))
    fault_proxy.faults = faults
    assert list(keys(s3_bucket)) == ["a.jpg"]
    assert fault_proxy.count(fault=str(faults.draw("", 1))) == 1


def test_refusals(s3_bucket: Bucket) -> None:
    with pytest.raises(FileNotFoundError, match="NoSuchBucket"):
        list(list_objects("no-such-bucket-anywhere", ""))
