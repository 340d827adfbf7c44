"""Thin entry points: parse, call the pipeline, print, exit."""

import importlib.util
import pathlib
import sys


def _hidden() -> str:
    """What hides the packages that stand beside this one, if anything does."""
    here = pathlib.Path(__file__).resolve().parents[1]
    for name in ("pipeline", "cvt"):
        ours = here / name / "__init__.py"
        spec = importlib.util.find_spec(name)
        # A folder without modules has no origin, and hides what an editable installation adds.
        place = spec and (spec.origin or next(iter(spec.submodule_search_locations or ()), None))
        found = pathlib.Path(place).resolve() if place else ours
        if found != ours:
            folder = found.parent if found.name == "__init__.py" else found
            return (
                f"{folder} hides the package {name} of {here}; start the command in another "
                "directory, rename what is in the way, or take its directory off PYTHONPATH"
            )
    return ""


if _message := _hidden():
    # Before the first import of ours, which would fail with a traceback.
    print(f"error: {_message}", file=sys.stderr)
    sys.exit(2)
