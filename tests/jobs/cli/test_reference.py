"""docs/cli.md says what the commands say of themselves."""

import re

from jobs.cli import reference


def test_the_reference_is_not_stale() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run python -m jobs.cli.reference"


def test_a_flag_is_not_called_by_its_place() -> None:
    """As errors call it, until the door spells them."""
    assert not re.findall(r"<[a-z]+\.[a-z_]+>", reference.page())


def test_every_job_is_in_it() -> None:
    headings = re.findall(r"^## (.*)$", reference.PAGE.read_text(), flags=re.MULTILINE)
    jobs = ("classify", "compact", "corrections", "embed", "finetune", "nightly", "relabel")
    assert {f"cvt-{job}" for job in jobs} <= set(headings)
    assert headings[-1] == "The file of cvt-nightly"
