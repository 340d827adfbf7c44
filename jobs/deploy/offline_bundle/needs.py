"""What the jobs need on a machine, and what of it has to be brought along."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pipeline import __version__
from pipeline.contract.errors import RunError, UsageError

PRESENT: Final = Path(__file__).with_name("present.txt")
"""What a machine for research with PyTorch commonly has."""
TOO_LARGE: Final = ("torch",)
"""What no bundle holds."""

_PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


@dataclass(frozen=True)
class Package:
    """One version of a package."""

    name: str
    """As PEP 503 spells it, like all names here."""
    version: str
    requires: tuple[str, ...]
    """Requirements with their markers, as in its metadata."""


@dataclass(frozen=True)
class Choice:
    """What goes into a bundle."""

    packed: dict[str, str]
    """Version by name."""
    present: tuple[str, ...]
    """Needed, but left to the machine."""
    replaced: dict[str, str]
    """Version there of what is packed because that version does not do."""


def project() -> Package:
    """This project, as its pyproject.toml describes it."""
    table = tomllib.loads(_PYPROJECT.read_text())["project"]
    name = canonicalize_name(table["name"])
    return Package(name, __version__, tuple(table["dependencies"]))


def to_resolve(package: Package) -> list[str]:
    """Requirements that pip is asked for: all but what no bundle holds."""
    names = ((canonicalize_name(Requirement(text).name), text) for text in package.requires)
    return [text for name, text in names if name not in TOO_LARGE]


def read_present(path: Path) -> dict[str, Version | None]:
    """What a machine has, from the output of ``pip freeze`` there, or a list of names.

    Returns:
        Version by name; None where the file does not tell, as for ``name @ file:///...``.

    Raises:
        UsageError: the file cannot be read, or a line of it.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read --present {path}: {error}") from error
    there: dict[str, Version | None] = {}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text or text.startswith("-"):  # an option, such as that of an editable install
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise UsageError(
                f"{path} line {number}: {text!r} is not a line of pip freeze; write name==version"
            ) from error
        pins = [Version(one.version) for one in requirement.specifier if one.operator == "=="]
        there[canonicalize_name(requirement.name)] = pins[0] if pins else None
    return there


def demands(
    root: Package, packages: Mapping[str, Package], python_version: str
) -> dict[str, list[Requirement]]:
    """Everything that a package needs, directly or not, with all that is asked of it.

    Args:
        root: where to start; it is not part of the answer.
        packages: what pip resolved, by name.
        python_version: such as "3.12"; the platform is Linux on x86-64.

    Raises:
        RunError: something is needed there that pip has not resolved here.
    """
    environment = _environment(python_version)
    found: defaultdict[str, list[Requirement]] = defaultdict(list)
    waiting = list(_required(root, (), environment))
    for requirement in waiting:  # grows while it is read
        name = canonicalize_name(requirement.name)
        if requirement in found[name]:
            continue
        found[name].append(requirement)
        if name in packages:
            waiting += _required(packages[name], requirement.extras, environment)
        elif name not in TOO_LARGE:
            # pip evaluates markers for the Python that it runs on.
            raise RunError(
                f"{name} is needed on Python {python_version}, which pip of this Python does not "
                f"see; run the same command with Python {python_version}"
            )
    return dict(found)


def _required(
    package: Package, extras: Iterable[str], environment: Mapping[str, str]
) -> Iterator[Requirement]:
    for requirement in map(Requirement, package.requires):
        marker = requirement.marker
        if marker is None or any(
            marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)
        ):
            yield requirement


def _environment(python_version: str) -> dict[str, str]:
    """What markers are compared with: CPython for Linux on x86-64."""
    return {name: str(value) for name, value in default_environment().items()} | {
        "implementation_name": "cpython",
        "implementation_version": f"{python_version}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python_version}.0",
        "python_version": python_version,
        "sys_platform": "linux",
    }


def choose(
    needed: Mapping[str, Iterable[Requirement]],
    packages: Mapping[str, Package],
    there: Mapping[str, Version | None],
) -> Choice:
    """Pack what is needed and not there, or there in a version that somebody does not accept.

    Raises:
        UsageError: the machine lacks what no bundle holds.
    """
    packed: dict[str, str] = {}
    present: list[str] = []
    replaced: dict[str, str] = {}
    for name, requirements in sorted(needed.items()):
        if name in there and _suits(there[name], requirements):
            present.append(name)
            continue
        if name in TOO_LARGE:
            asked = ", ".join(map(str, requirements))
            raise UsageError(f"no bundle holds {asked}: install it there and list it in --present")
        packed[name] = packages[name].version
        if name in there:
            replaced[name] = str(there[name])
    return Choice(packed, tuple(present), replaced)


def _suits(version: Version | None, requirements: Iterable[Requirement]) -> bool:
    """A version that is not known is taken to be a good one."""
    return version is None or all(
        one.specifier.contains(version, prereleases=True) for one in requirements
    )
