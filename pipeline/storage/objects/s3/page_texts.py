"""What the elements of a page of S3's listing hold.

A thousand objects look alike, but for what their elements hold. So an XML parser reads the page
with the first of them alone, and a pattern of its tags finds the others, in a quarter of the time:
a parser calls back for each tag, and a tree of the elements takes twice as much as that. A page on
which anything is out of the ordinary is parsed as a whole.
"""

from __future__ import annotations

import re
from functools import lru_cache
from xml.parsers import expat

from pipeline.storage.retry import PassingError

OF_OBJECTS = ("Key", "Size", "ETag")
_OF_A_PAGE = ("EncodingType", "IsTruncated", "NextContinuationToken")
"""Each once on a page."""

Texts = dict[str, list[str]]
"""By the names of elements, without a prefix, what they hold, in their order; for what an object
lacks, an empty string."""

_FIRST, _LAST = b"<Contents>", b"</Contents>"
_PLAIN = bytes({*range(ord(" "), ord("~") + 1), *b"\t\n"} - {*b"&"})
"""Characters that stand for themselves in XML, whatever its encoding."""
_TEXT = "[^<]*"


def page_texts(xml: bytes) -> tuple[str, Texts]:
    """The name of the root, and what the elements of the page and of its objects hold.

    Raises:
        FetchError: the page is cut off, or what belongs to which object is not clear.
    """
    start, last = xml.find(_FIRST), xml.rfind(_LAST)
    end = last + len(_LAST)
    columns = _alike(xml[start:end]) if 0 <= start < last else None
    if columns is None:
        return _parsed(xml)
    root, texts = _parsed(xml[: xml.index(_LAST, start) + len(_LAST)] + xml[end:])
    is_so_read = all(texts[name] == column[:1] for name, column in columns.items())
    return (root, texts | columns) if is_so_read else _parsed(xml)


def _alike(xml: bytes) -> Texts | None:
    """What objects hold that follow each other; None if not all are like the first."""
    xml = xml.replace(b"&quot;", b'"').replace(b"&#34;", b'"')
    if xml.translate(None, _PLAIN) or b"]]>" in xml:
        return None
    objects = xml.decode("ascii")
    pattern = _pattern("".join(re.findall("<[^<>]*>", objects[: xml.index(_LAST) + len(_LAST)])))
    found = pattern.findall(objects) if pattern else []
    if pattern is None or len(found) != xml.count(_FIRST):
        return None
    columns = map(list, zip(*found, strict=True))
    return dict(zip(pattern.groupindex, columns, strict=True))


@lru_cache(maxsize=64)
def _pattern(tags: str) -> re.Pattern[str] | None:
    """Of an object with these tags, whatever its elements hold; behind it is another one, or
    nothing."""
    pattern = re.escape(tags).replace("><", f">{_TEXT}<")
    for name in OF_OBJECTS:
        element = f"<{name}>{_TEXT}</{name}>"
        if pattern.count(element) != 1:
            return None
        pattern = pattern.replace(element, f"<{name}>(?P<{name}>{_TEXT})</{name}>")
    return re.compile(rf"{pattern}\s*(?=<Contents>|\Z)")


def _parsed(xml: bytes) -> tuple[str, Texts]:
    """The same by a parser, of any page."""
    root, objects = "", 0
    texts: Texts = {name: [] for name in (*OF_OBJECTS, *_OF_A_PAGE)}
    of_objects = [texts[name] for name in OF_OBJECTS]
    text: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        text.clear()

    def end(name: str) -> None:
        nonlocal root, objects
        if name in texts:
            texts[name].append("".join(text))
        elif name == "Contents":
            objects += 1
            for column in of_objects:
                if len(column) != objects:
                    _fill(column, objects)
        elif ":" in name:
            end(name.rpartition(":")[2])
        else:
            root = name  # the last one that ends

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.CharacterDataHandler = text.append
    parser.EndElementHandler = end
    try:
        parser.Parse(xml, True)
    except expat.ExpatError as error:
        raise PassingError("storage_error", f"a page of the listing is cut off: {error}") from error
    return root, texts


def _fill(column: list[str], objects: int) -> None:
    """Add what the last object lacks."""
    if len(column) > objects:
        raise PassingError("storage_error", "S3 lists an object with two names, or sizes")
    column.append("")
