"""Files that went through a decode task, without Ray."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from cvt import CvtImageProcessor
from pipeline.model.families.cvt import CvtPreprocessing
from pipeline.stages.decode.settings import DecodeSettings
from pipeline.stages.decode.task import decode_block
from pipeline.storage.filesystems import WorkerEnvironment
from tests.support.inputs.fetching import work

SIZE = 32


def decoded(directory: Path, files: dict[str, bytes], mode: Any, **options: Any) -> list[pa.Table]:
    """The tables that leave the task, for files that are written first."""
    rows = []
    for name, data in files.items():
        (directory / name).write_bytes(data)
        rows.append({"uri": str(directory / name), "size_bytes": len(data)})
    values: dict[str, Any] = {
        "preprocessing": CvtPreprocessing(CvtImageProcessor(size=SIZE)),
        "mode": mode,
        "environment": WorkerEnvironment({}),
        "max_pixels": 10**6,
        "max_bytes": 10**8,
        **options,
    }
    return list(decode_block(work(*rows), DecodeSettings(**values)))
