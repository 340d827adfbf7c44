"""Everything that defines a run, as one tree."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_type_hints

from pipeline.contract.errors import UsageError
from pipeline.contract.spec.compute import ComputeSpec
from pipeline.contract.spec.inputs import InputSpec
from pipeline.contract.spec.model import ModelSpec
from pipeline.contract.spec.output import OutputSpec
from pipeline.contract.spec.policy import PolicySpec
from pipeline.contract.spec.settings import About, Setting, settings
from pipeline.contract.urls import public


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run, whole: what comes in, what computes, what goes out."""

    inputs: InputSpec
    model: ModelSpec
    output: OutputSpec
    compute: ComputeSpec = field(default_factory=ComputeSpec)
    policy: PolicySpec = field(default_factory=PolicySpec)

    def __post_init__(self) -> None:
        if self.output.sink == "lance" and self.policy.allow_mixed:
            raise UsageError(
                "<output.sink> lance excludes <policy.allow_mixed>: embeddings of two models are "
                "not comparable; <policy.full> redoes everything with the new one"
            )

        if self.model.shadow is not None and self.output.top_k is None:
            raise UsageError(
                "<model.shadow> compares labels, and this run writes none; drop it, or ask for "
                "labels as jobs.embed with <output.top_k> or jobs.classify does"
            )

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON types, for the manifest: URLs are without credentials."""
        values = dataclasses.asdict(self)
        values["inputs"]["uris"] = tuple(map(public, self.inputs.uris))
        values["model"]["source"] = public(self.model.source)
        if self.model.shadow is not None:
            values["model"]["shadow"] = public(self.model.shadow)
        return values


SECTIONS: Final[dict[str, Any]] = get_type_hints(RunSpec)
"""The specs that make up a run, by the name of their section."""
SETTINGS: Final[dict[str, Setting]] = {
    one.place: one for name, spec in SECTIONS.items() for one in settings(spec, name)
}
"""Every setting of a run by its place, such as "model.dtype"."""


def same(place: str, **words: Any) -> Mapping[str, About]:
    """Metadata of a setting that a run has too, perhaps in other words in another job."""
    return replace(SETTINGS[place].about, place=place, **words).metadata
