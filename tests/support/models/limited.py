"""A family that decodes as CvT does, in a process that may take one GiB, and no more."""

import resource
from dataclasses import dataclass, replace
from functools import cache

from cvt import CvtImageProcessor
from pipeline.contract.spec import CpuDecodeMode, ModelSpec
from pipeline.model.families.cvt import CvtPreprocessing
from pipeline.model.families.registry import Family
from pipeline.model.network import Decoded
from tests.support.models.toy_family import ToyCheckpoint
from tests.support.models.toy_family import load as load_toy

MOST_BYTES = 2**30


@dataclass(frozen=True)
class LimitedPreprocessing(CvtPreprocessing):
    def decode(self, data: bytes, *, mode: CpuDecodeMode, max_pixels: int) -> Decoded:
        limit_memory()
        return super().decode(data, mode=mode, max_pixels=max_pixels)


@cache
def limit_memory() -> None:
    """What this process has in memory, with all libraries, and what it may still take, is one GiB.

    The limit is on addresses, of which Ray's object store and the libraries have many already.
    """
    with open("/proc/self/statm") as file:
        addresses, resident = (int(pages) for pages in file.read().split()[:2])
    page = resource.getpagesize()
    most = addresses * page + MOST_BYTES - resident * page
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def load(spec: ModelSpec) -> ToyCheckpoint:
    toy = load_toy(spec)
    processor = CvtImageProcessor(size=toy.preprocessing.size)
    return replace(toy, preprocessing=LimitedPreprocessing(processor))  # type: ignore[arg-type]


LIMITED = Family("toy", load, lambda config: config.get("model_type") == "toy")
