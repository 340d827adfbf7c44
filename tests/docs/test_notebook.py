"""The notebook of the documentation, from its first cell to its last, in a kernel of its own."""

import os
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.commands import REPOSITORY

NOTEBOOK = REPOSITORY / "docs" / "notebook.ipynb"
PICTURES = 240
Outputs = dict[str, list[Any]]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """What stands below each cell, by its id."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(NOTEBOOK.parent)}}
    client = NotebookClient(notebook, timeout=800, kernel_name="python3", resources=place)
    temporary = str(tmp_path_factory.mktemp("notebook"))
    client.execute(env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": temporary})
    return {cell.id: cell.get("outputs", []) for cell in notebook.cells}


def test_it_is_kept_without_what_it_prints() -> None:
    """Paths of somebody's machine, and pictures, which every run would change."""
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert not cell.get("outputs")


@pytest.mark.ray
def test_a_result_shows_its_numbers_and_its_pictures(outputs: Outputs) -> None:
    for cell, has_pictures in {"classify": True, "relabel": False}.items():
        shown = outputs[cell][-1].data["text/html"]
        assert f"<b>{PICTURES}</b>listed" in shown
        assert (shown.count("data:image/jpeg;base64,") > 10) is has_pictures
        assert "<script" not in shown


@pytest.mark.ray
def test_progress_stands_in_one_place_below_the_cell(outputs: Outputs) -> None:
    progress, result = outputs["classify"]  # and nothing of Ray's, nor a warning
    assert (progress.output_type, result.output_type) == ("display_data", "execute_result")
    lines = progress.data["text/plain"].splitlines()
    assert lines[0].startswith("starting: PyTorch and Ray")
    assert f"plan: {PICTURES} new" in lines
    assert sum("/s" in line for line in lines) <= 1, lines


@pytest.mark.ray
def test_the_table_is_in_the_new_words(outputs: Outputs) -> None:
    counted = outputs["labels"][0].data["text/plain"]
    assert all(word in counted for word in ("shoe", "bag", "garment"))
    assert f"{PICTURES} images of 3 classes" in outputs["finetune"][0].text
    assert float(outputs["agreement"][0].text.partition("%")[0]) > 90
    assert "score" in outputs["agreement"][1].data["text/html"]
