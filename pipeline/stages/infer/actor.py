"""The actor: holds one replica of the network; DECODED goes in, results come out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from torch import Tensor

from pipeline.contract.schema import JPEG, PIXELS, SHADOW, Status
from pipeline.model.bundle import ModelBundle, ShadowBundle
from pipeline.model.network import Pixels
from pipeline.monitoring.review.pictures import Shortlist, with_pictures
from pipeline.stages.infer.devices import Device, device, device_pixels
from pipeline.stages.infer.faults import is_lost_device, leave
from pipeline.stages.infer.rows import Predictions, assemble, count, pixels_of, shadow_answers
from pipeline.stages.infer.settings import InferSettings


class Predictor:
    """Callable for ``Dataset.map_batches``: turns decoded images into result rows."""

    def __init__(
        self,
        bundle: ray.ObjectRef[ModelBundle] | ModelBundle,
        settings: InferSettings,
        shadow: ray.ObjectRef[ShadowBundle] | ShadowBundle | None = None,
    ) -> None:
        """``shadow``: a second network, over the same pixels."""
        shared = bundle if isinstance(bundle, ModelBundle) else ray.get(bundle)
        self.settings, self.size = settings, shared.size
        self.labels = pa.array(shared.classes, pa.string())
        with self._ending_if_lost():
            self.device = _checked(shared, settings)
            self.shadow = None if shadow is None else _Shadow.of(shadow, settings)
            self.jpegs = device_pixels(settings)
            if self.jpegs is not None:
                self.jpegs.check(shared.golden.pixels[0])
        self.shortlist = Shortlist(settings.review) if settings.review else None
        settings.reporter.report(actors=1)

    def __call__(self, batch: pa.Table) -> pa.Table:
        started = time.perf_counter()
        rows, pixels = self.pixels(batch)
        predictions = self.predict(pixels) if len(pixels) else None
        table = assemble(rows, predictions, self.labels, self.settings)
        if self.shadow is not None:
            table = table.append_column(SHADOW, self.answers(self.shadow, rows, pixels))
        if self.shortlist is not None:
            table = self._with_pictures(table, rows, pixels, self.shortlist)
        self.settings.reporter.report(
            inferred=table.num_rows - count(table, Status.DEFERRED),
            failed=count(table, Status.FAILED),
            infer_seconds=time.perf_counter() - started,
        )
        return table

    def pixels(self, batch: pa.Table) -> tuple[pa.Table, Pixels | Tensor]:
        """The rows without what they carry of an image, and the pixels of those that have some."""
        if self.jpegs is None or JPEG.name not in batch.column_names:
            rows = batch.drop_columns(PIXELS.name)
            return rows, pixels_of(batch[PIXELS.name], self.size)
        with self._ending_if_lost(), torch.inference_mode():
            return self.jpegs.of(batch)

    def predict(self, pixels: Pixels | Tensor) -> Predictions:
        """Run the network on uint8 pixels (B, S, S, 3), an array or on the device."""
        with self._ending_if_lost(), torch.inference_mode():
            return Predictions.of(self.device.run(pixels), self.settings)

    def answers(self, shadow: _Shadow, rows: pa.Table, pixels: Pixels | Tensor) -> pa.Array:
        """What the second network says of the rows."""
        with self._ending_if_lost(), torch.inference_mode():
            return shadow.answers(rows, pixels)

    def _with_pictures(
        self, table: pa.Table, rows: pa.Table, pixels: Pixels | Tensor, shortlist: Shortlist
    ) -> pa.Table:
        """Results with the pictures of those that a person may be shown.

        Args:
            rows: the same before they had results; those that are ``ok`` have ``pixels``.
        """
        chosen = np.flatnonzero(shortlist.choose(table))
        is_decoded = pc.equal(rows["status"], Status.OK.value).to_numpy()
        shown = pixels[(np.cumsum(is_decoded) - 1)[chosen]]
        on_host = shown.cpu().numpy() if isinstance(shown, Tensor) else shown
        return with_pictures(table, dict(zip(chosen.tolist(), on_host, strict=True)))

    @contextmanager
    def _ending_if_lost(self) -> Iterator[None]:
        """What uses the device; if that is lost, this process ends."""
        try:
            yield
        except RuntimeError as error:
            if self.settings.gpus and is_lost_device(error):
                leave(error, "the GPU", self.settings.reporter)
            raise


def _checked(bundle: ModelBundle, settings: InferSettings) -> Device:
    """The network where it computes, after a batch whose numbers are known."""
    found = device(bundle, settings)
    out = found.run(bundle.golden.pixels)
    logits, embedding = out.logits.numpy(), out.embedding.numpy()
    bundle.golden.check(logits, embedding, bundle.form.dtype, found.name)
    return found


@dataclass(frozen=True)
class _Shadow:
    """A second network beside the first."""

    device: Device
    labels: pa.Array
    shared: ShadowBundle

    @classmethod
    def of(
        cls, shadow: ray.ObjectRef[ShadowBundle] | ShadowBundle, settings: InferSettings
    ) -> Self:
        shared = shadow if isinstance(shadow, ShadowBundle) else ray.get(shadow)
        labels = pa.array(shared.bundle.classes, pa.string())
        return cls(_checked(shared.bundle, settings), labels, shared)

    def answers(self, rows: pa.Table, pixels: Pixels | Tensor) -> pa.Array:
        if not len(pixels):
            return pa.nulls(len(rows), SHADOW.type)
        return shadow_answers(rows, self.device.run(pixels).logits, self.labels, self.shared)
