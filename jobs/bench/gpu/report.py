"""What the parts found, as tables for people."""

from __future__ import annotations

from typing import Any

from jobs.bench.measure.tables import table

Found = dict[str, Any]


def section(part: str, found: Found) -> str:
    """The heading and the table of one part."""
    lines = [f"\n## {part}", ""]
    if rows := found["rows"]:
        lines.append(_TABLES[part](rows))
    if found["error"] is not None:
        lines.append(f"did not end: {found['error']}")
    return "\n".join(lines)


def has_failed(found: dict[str, Found]) -> bool:
    """Whether a part did not end, a number is wrong, or a fault cost a row."""
    return any(
        part["error"] is not None or not all(row.get("passed", True) for row in part["rows"])
        for part in found.values()
    )


def _parity(rows: list[Found]) -> str:
    head = ("dtype", "pooling", "size", "compiled", "worst", "cosine", "same labels", "")
    return table(
        head,
        [
            (
                row["dtype"],
                row["pooling"],
                row["size"],
                "yes" if row["compiled"] else "no",
                f"{row['worst']:.1e}",
                f"{row['cosine']:.6f}",
                f"{row['same_labels']:.0%}",
                _verdict(row),
            )
            for row in rows
        ],
    )


def _network(rows: list[Found]) -> str:
    head = ("form", "dtype", "batch", "images/s", "ms", "of peak", "MiB", "first call, s")
    lines = [
        table(
            head,
            [
                (
                    row["form"],
                    row["dtype"],
                    row["batch"],
                    f"{row['images_per_second']:.0f}",
                    f"{row['milliseconds']:.2f}",
                    f"{row['share_of_peak']:.1%}",
                    f"{row['peak_mib']:.0f}",
                    f"{row['first_seconds']:.1f}",
                )
                for row in rows
            ],
        )
    ]
    for name, ratio in ratios(rows).items():
        goal = GOALS.get(name) if rows[0]["dtype"] == "bfloat16" else None
        reached = "" if goal is None else f" (goal {goal:g}: {_reached(ratio >= goal)})"
        lines.append(f"ours at its best batch is {ratio:.2f} times {name} at its own{reached}")
    return "\n".join(lines)


GOALS = {"transformers": 2.0, "transformers, compiled": 1.25}
"""On an H100, in bfloat16."""


def ratios(rows: list[Found]) -> dict[str, float]:
    """Ours at its best batch over each of theirs at its own, in the dtype measured first."""
    best: dict[str, float] = {}
    for row in rows:
        if row["dtype"] == rows[0]["dtype"]:
            best[row["form"]] = max(best.get(row["form"], 0.0), row["images_per_second"])
    theirs = {name: rate for name, rate in best.items() if name.startswith("transformers")}
    ours = max((rate for name, rate in best.items() if name not in theirs), default=0.0)
    return {name: ours / rate for name, rate in theirs.items()}


def _whole(rows: list[Found]) -> str:
    found = rows[0]
    stages = [
        (name, f"{stage['images_per_second']:.0f}", f"{1000 * stage['cpu_seconds_per_image']:.2f}")
        for name, stage in found["stages"].items()
    ]
    run, ceilings = found["end_to_end"], found["ceilings"]
    stages.append(("end to end", f"{run['images_per_second']:.0f}", ""))
    if found["decode_gpu"] is not None:
        rate = found["decode_gpu"]["images_per_second"]
        stages.append(("end to end, --decode gpu", f"{rate:.0f}", ""))
    lines = [table(("", "images/s", "CPU ms/image"), stages), ceilings["bottleneck"]]
    if found["no_decode_gpu"] is not None:
        lines.append(f"--decode gpu is not measured: {found['no_decode_gpu']}")
    share = found["end_to_end"]["images_per_second"] / ceilings["expected_images_per_second"]
    lines.append(f"end to end reaches {share:.0%} of the smaller ceiling (goal 85%)")
    for name in ("cores", "cards"):
        if found[name] is not None:
            lines.append(f"{name} busy while everything runs: {found[name]:.0%}")
    return "\n".join(lines)


def _faults(rows: list[Found]) -> str:
    head = ("fault", "exit code", "rows", "of", "")
    cells = [
        (row["fault"], row["exit_code"], row["ok"], row["images"], _verdict(row)) for row in rows
    ]
    said = [f"{row['fault']}: {row['said']}" for row in rows]
    return "\n".join([table(head, cells), *said])


def _peers(rows: list[Found]) -> str:
    return str(rows[0]["table"])


def _verdict(row: Found) -> str:
    return "passed" if row["passed"] else "FAILED"


def _reached(is_reached: bool) -> str:
    return "reached" if is_reached else "missed"


_TABLES = {
    "parity": _parity,
    "network": _network,
    "whole": _whole,
    "faults": _faults,
    "peers": _peers,
}
