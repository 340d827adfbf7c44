"""Picture bombs under a hard limit of memory: each ends with its code, and takes little of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pictures.bombs import BOMBS, MAX_PIXELS

MORE_MIB = 192
"""Beside what is imported: the files themselves, a copy, and an image of ``MAX_PIXELS``."""

_PROGRAM = """
import json, os, resource, sys
from pathlib import Path
from PIL import Image
from cvt import CvtImageProcessor, ImageDecodeError

directory, max_pixels, more = json.loads(sys.argv[1])
processor = CvtImageProcessor(size=32)
processor.pixels_from_bytes((Path(directory) / "first").read_bytes(), mode="fast")
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()

def decode(path, mode):
    resource.setrlimit(resource.RLIMIT_AS, (taken + more, taken + more))
    try:
        processor.pixels_from_bytes(path.read_bytes(), mode=mode, max_pixels=max_pixels)
    except ImageDecodeError as error:
        return f"{error.code}: {error}"
    except BaseException as error:
        return repr(error)
    return "ok"

found = {}
for path in sorted(Path(directory).glob("bomb-*")):
    for mode in ("exact", "fast"):
        reader, writer = os.pipe()
        if not os.fork():
            os.write(writer, decode(path, mode).encode())
            os._exit(0)
        os.close(writer)
        with open(reader) as answer:
            found[f"{path.name.removeprefix('bomb-')}, {mode}"] = answer.read()
        os.wait()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each, in one process for all: to import PyTorch takes longer than all else."""
    directory = tmp_path_factory.mktemp("bombs")
    for name, (make, _) in BOMBS.items():
        (directory / f"bomb-{name}").write_bytes(make())
    (directory / "first").write_bytes(Path("jobs/demo/report.png").read_bytes())
    arguments = json.dumps([str(directory), MAX_PIXELS, MORE_MIB * 2**20])
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, arguments], capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("name", BOMBS)
def test_each_ends_with_its_code(found: dict[str, str], name: str, mode: str) -> None:
    answer = found[f"{name}, {mode}"]
    assert answer.partition(":")[0] == BOMBS[name][1], answer
    assert "memory" not in answer.lower(), answer
