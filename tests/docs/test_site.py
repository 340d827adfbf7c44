"""The pages make a site."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.commands import REPOSITORY


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs"]
    done = subprocess.run(
        [*sphinx, ".", str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    entrance = re.search(r"url=([\w/.]+)", (tmp_path / "index.html").read_text())
    assert entrance
    assert (tmp_path / entrance[1]).exists()
    assert list(tmp_path.glob("_images/rooms.svg"))
