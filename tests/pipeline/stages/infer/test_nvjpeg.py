"""Whether a machine's card decodes JPEG files, and what becomes of those that it does not."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cvt.preprocessing.decode import decode_image
from pipeline.stages.infer.nvjpeg import NvJpeg, why_not
from tests.support.inputs.images import encode, noise

WHY_NOT = why_not()
BAD, LOST = b"bad", b"lost"
_IO = """
import torch

class ImageReadMode:
    RGB = "RGB"

def decode_jpeg(files, mode, device):
    assert (mode, device.type) == ("RGB", "cuda")
    contents = [bytes(file.tolist()) for file in files]
    if b"lost" in contents:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if b"bad" in contents:
        raise RuntimeError("Error while decoding JPEG images: nvjpegDecode failed")
    {behave}
    return [torch.full((3, 2, 2), len(one) % 256, dtype=torch.uint8) for one in contents]
"""


@pytest.fixture
def torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a torchvision in place whose decoder behaves so, and a GPU."""

    def install(behave: str = "") -> None:
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision/__init__.py").touch()
        (tmp_path / "torchvision/io.py").write_text(_IO.format(behave=behave))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            monkeypatch.delitem(sys.modules, name)

    yield install
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]


class TestDecoder:
    def test_the_others_of_a_batch_do_not_suffer(self, torchvision: Any) -> None:
        torchvision()
        files = [b"1", BAD, b"333", b"4444", BAD]
        found = [None if one is None else int(one[0, 0, 0]) for one in NvJpeg().decode(files)]
        assert found == [1, None, 3, 4, None]

    def test_a_lost_card_is_no_bad_file(self, torchvision: Any) -> None:
        torchvision()
        with pytest.raises(RuntimeError, match="illegal memory access"):
            NvJpeg().decode([b"1", LOST])


class TestWhyNot:
    def test_nothing_is_in_the_way(self, torchvision: Any) -> None:
        torchvision()
        assert why_not() is None

    @pytest.mark.parametrize(
        ("behave", "reason"),
        [
            ("raise RuntimeError('torchvision not compiled with nvJPEG support')",
             "RuntimeError: torchvision not compiled with nvJPEG support"),
            ("import os; os._exit(9)", "the process ended with 9"),
        ],
        ids=["not built for it", "a crash"],
    )  # fmt: skip
    def test_it_is_tried(self, torchvision: Any, behave: str, reason: str) -> None:
        torchvision(behave)
        assert why_not() == f"torchvision does not decode on it: {reason}"

    def test_without_a_gpu(self, torchvision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        torchvision()
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        assert why_not() == "PyTorch sees no GPU"

    def test_without_torchvision(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert why_not() == "torchvision is not installed"


@pytest.mark.gpu
@pytest.mark.skipif(WHY_NOT is not None, reason=f"no card decodes JPEG files: {WHY_NOT}")
def test_of_a_real_card() -> None:
    """Held against Pillow; ``test_gpu.py`` has the actor that uses it."""
    smooth = noise(9, 6).resize((640, 480), Image.Resampling.BICUBIC)
    good = encode(smooth, "JPEG", quality=92)
    exact = np.asarray(decode_image(good)).astype(np.int16)
    first, bad, last = NvJpeg().decode([good, BAD, good])
    assert bad is None
    assert first is not None
    assert last is not None
    assert first.shape == (3, 480, 640)
    assert torch.equal(first, last)
    assert np.abs(first.permute(1, 2, 0).cpu().numpy() - exact).mean() < 3
