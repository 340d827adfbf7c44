"""The pictures of a model's page: what the queues of outputs have kept, and some images once more.

An output with embeddings spares its images being read. So they are read from a bucket only if
somebody has asked for that, by a champion or by a number of pictures; on a disk it costs nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contract.spec import FinetuneSpec
from pipeline.contract.spec.finetune import PICTURES
from pipeline.model.network import Preprocessing
from pipeline.monitoring.model.contest import differing
from pipeline.monitoring.model.mistakes import mistakes
from pipeline.monitoring.review.kept import KeptPictures
from pipeline.output.ledger.history import History
from pipeline.stages.decode.pictures import pictures
from pipeline.storage.uris import split_uri

SECONDS = 20.0
"""For those that are read; what is not there by then is left out."""


@dataclass(frozen=True)
class PageImages:
    """Where the pictures come from, and how many there may be."""

    spec: FinetuneSpec
    preprocessing: Preprocessing
    """What the model sees of an image."""
    outputs: Sequence[History]
    """That the embeddings come from; none if the images themselves were read."""

    def shown(self, predictions: pa.Table, issues: pa.Table) -> Mapping[str, str]:
        """JPEGs in base 64, by uri.

        Args:
            predictions: ``layout.PREDICTIONS``, with the column ``champion`` if there is one.
            issues: ``layout.LABEL_ISSUES``.
        """
        most = PICTURES if self.spec.pictures is None else self.spec.pictures
        sections = [
            differing(predictions, most) if "champion" in predictions.column_names else [],
            mistakes(predictions)["uri"].slice(0, most).to_pylist(),
            issues["uri"].slice(0, most).to_pylist(),
        ]
        in_turn = chain.from_iterable(zip_longest(*sections))
        wanted = list(dict.fromkeys(uri for uri in in_turn if uri is not None))
        found = self._kept(wanted)
        unread = [uri for uri in wanted if uri not in found and self._may_be_read(uri)]
        read = pictures(unread, self.preprocessing, SECONDS) if unread else {}
        return {**found, **read}

    def _may_be_read(self, uri: str) -> bool:
        is_asked_for = self.spec.pictures is not None or self.spec.champion is not None
        return is_asked_for or not self.outputs or split_uri(uri)[0] == "file"

    def _kept(self, wanted: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for history in self.outputs if wanted else ():
            table = KeptPictures.of_runs(history.store, history.run_ids).table
            some = table.filter(pc.is_in(table["uri"], pa.array(wanted, pa.string())))
            for row in some.to_pylist():
                found.setdefault(row["uri"], base64.b64encode(row["picture"]).decode())
        return found
