"""What Label Studio exports as JSON, or as JSON-MIN, as corrections."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.contract.corrections import Correction, correction_from
from pipeline.contract.errors import UsageError, one_line
from pipeline.contract.records import parsed

NO_CLASS = "(not one of these)"
BAD_PICTURE = "(bad picture)"
_VERDICTS = {NO_CLASS: "none", BAD_PICTURE: "bad_picture"}
CONTROL = "label"
"""The name of the choice in the labelling interface."""
_ABOUT_TASKS = ("queue", "proposed", "score", "run_id")
"""What a task of ours remembers of where it comes from."""


def begins_export(head: bytes) -> bool:
    """Whether a file that begins so is an export, which is a list in JSON, and no table."""
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def read_export(data: bytes, name: str) -> list[Correction]:
    """The annotations of an export, without those that were skipped.

    Raises:
        UsageError: it is no such export; the message names the task and the cause.
    """
    try:
        tasks = parsed(data)
        if not isinstance(tasks, list):
            raise ValueError("it is no list of tasks")
        return [one for number, task in enumerate(tasks) for one in _of_task(number, task)]
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{name}: {one_line(error)}; export it from Label Studio as JSON or JSON-MIN"
        ) from error


def _of_task(number: int, task: Any) -> Iterator[Correction]:
    if not isinstance(task, dict):
        raise ValueError(f"task {number} is no object")
    place = f"task {task.get('id', number)}"
    try:
        is_whole = "annotations" in task
        for values in _annotations(task) if is_whole else _flat(task):
            if (found := correction_from(values)) is not None:
                yield found
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{place}: {error or type(error).__name__}") from error


def _annotations(task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    data = task["data"]
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        chosen = [part for part in annotation["result"] if part.get("type") == "choices"]
        names = {part["from_name"] for part in chosen}
        if CONTROL not in names and len(names) > 1:
            raise ValueError(f"it has the choices {', '.join(sorted(names))}, but no {CONTROL}")
        ours = CONTROL if CONTROL in names else next(iter(names), CONTROL)
        choices = [one for p in chosen if p["from_name"] == ours for one in p["value"]["choices"]]
        yield _values(data, choices, annotation.get("completed_by"), annotation)


def _flat(task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A task of JSON-MIN, in which each annotation is one."""
    chosen = task.get(CONTROL)
    choices = chosen["choices"] if isinstance(chosen, dict) else [chosen] if chosen else []
    yield _values(task, choices, task.get("annotator"), task)


def _values(
    data: Mapping[str, Any], choices: list[Any], who: Any, times: Mapping[str, Any]
) -> dict[str, Any]:
    """An annotation by the columns of a correction."""
    if len(choices) > 1:
        raise ValueError(f"{len(choices)} classes are chosen, where an image has one")
    texts = [str(one) for one in choices]
    verdict = next((_VERDICTS[one] for one in texts if one in _VERDICTS), "label" if texts else "")
    person = who.get("email") or who.get("id") if isinstance(who, dict) else who
    known = {name: data.get(name) for name in _ABOUT_TASKS}
    found = known | {
        "uri": data.get("uri") or data.get("image"),
        "label": texts[0] if verdict == "label" else "",
        "verdict": verdict,
        "who": "" if person is None else str(person),
        "when": times.get("updated_at") or times.get("created_at"),
    }
    return {name: _unicode(value) for name, value in found.items()}


def _unicode(value: Any) -> Any:
    """Refuse what no file in UTF-8 can hold; JSON can."""
    if isinstance(value, str):
        value.encode()
    return value
