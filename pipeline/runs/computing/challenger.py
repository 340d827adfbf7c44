"""The second model of a run, which sees the same pixels, and whose labels nobody publishes."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ModelSpec, RunSpec
from pipeline.contract.urls import public
from pipeline.model.bundle import ShadowBundle
from pipeline.model.loaded import LoadedModel, read_checkpoint
from pipeline.model.network import Checkpoint
from pipeline.model.training.published import newest_model
from pipeline.monitoring.model.shadow import ShadowModel
from pipeline.output.identity import differences, short_hash

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Challenger:
    """A second model, loaded."""

    loaded: LoadedModel
    model: ShadowModel

    def pack(self) -> ShadowBundle:
        """What the actors get."""
        return ShadowBundle(self.loaded.pack(), self.loaded.scores, self.model.key)


@dataclass(frozen=True)
class Challenge:
    """A second model as it was read, before it is decided what the run computes in."""

    spec: RunSpec
    """Of a run of its own."""
    checkpoint: Checkpoint

    @classmethod
    def read(cls, spec: RunSpec, ours: Checkpoint) -> Challenge | None:
        """Read what ``model.shadow`` names; None if nothing, or the run's own model.

        Raises:
            UsageError: it cannot be read, has no classes, or needs other pixels.
        """
        if spec.model.shadow is None:
            return None
        own = _run_of(spec, newest_model(spec.model.shadow))
        name = public(own.model.source)
        try:
            theirs = read_checkpoint(own)
        except UsageError as error:
            raise UsageError(f"<model.shadow> {name}: {error.args[0]}") from error
        if (theirs.weights_sha256, theirs.classes) == (ours.weights_sha256, ours.classes):
            log.warning("no <model.shadow>: %s is the model of this run itself", name)
            return None
        lines = differences(theirs.preprocessing.of_pixels, ours.preprocessing.of_pixels)
        if lines:
            raise UsageError(
                f"<model.shadow> {name} needs other pixels than <model.source> "
                f"({'; '.join(lines)}), and both get the same ones; compare it in a run of its own"
            )
        log.info("in the shadow: %s", name)
        return cls(own, theirs)

    def beside(self, model: LoadedModel) -> Challenger:
        """The same in the arithmetic of the run."""
        loaded = LoadedModel.of(self.checkpoint, self.spec, model.arithmetic)
        ours, theirs = set(model.classes), set(loaded.classes)
        identity = json.dumps(loaded.identity.to_dict(), sort_keys=True)
        return Challenger(
            loaded,
            ShadowModel(
                name=loaded.provenance.model,
                weights_sha256=loaded.provenance.weights_sha256,
                fingerprint=loaded.provenance.fingerprint,
                key=short_hash(identity),
                only_it=tuple(sorted(theirs - ours)),
                not_it=tuple(sorted(ours - theirs)),
            ),
        )


def _run_of(spec: RunSpec, source: str) -> RunSpec:
    """A run of the second model, which labels and does nothing else. What was said of the first
    one's activation and thresholds is not said of it."""
    model: ModelSpec = replace(spec.model, source=source, shadow=None, activation=None)
    output = replace(
        spec.output, top_k=1, thresholds=None, embeddings=False, pooling="cls_norm", normalize=False
    )
    return replace(spec, model=model, output=output)
