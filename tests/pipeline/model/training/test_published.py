"""A directory of models stands for the newest one; everything else stands for itself."""

import json
from pathlib import Path

import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.spec import ModelSpec
from pipeline.model.training.published import newest, newest_model, training_of


def write(path: Path, content: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path.parent)


def test_the_newest_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pipeline")
    models = write(tmp_path / "models/latest.json", {"model": "models/0f3a"})
    assert newest_model(models) == newest_model(f"{models}/") == f"{models}/models/0f3a"
    spec = ModelSpec(source=models, image_size=64)
    assert newest(spec) == ModelSpec(source=f"{models}/models/0f3a", image_size=64)
    assert f"the newest model there is {models}/models/0f3a" in caplog.text


@pytest.mark.parametrize(
    "source", ["microsoft/cvt-13", "model.safetensors", "s3://no-such-bucket-of-ours/x.pth"]
)
def test_other_sources_stand_for_themselves(source: str) -> None:
    assert newest_model(source) == source
    assert training_of(source) is None


def test_an_output_names_no_model(tmp_path: Path) -> None:
    """Its latest.json names a run."""
    out = write(tmp_path / "latest.json", {"run_id": "1", "manifest": "runs/1/manifest.json"})
    assert newest_model(out) == out


@pytest.mark.parametrize("named", ["../../etc", "models/../x", "/models/x", "models/", "x"])
def test_a_name_that_leads_elsewhere_is_refused(named: str, tmp_path: Path) -> None:
    models = write(tmp_path / "latest.json", {"model": named})
    with pytest.raises(UsageError, match="which is no model there"):
        newest_model(models)


def test_damage_is_named(tmp_path: Path) -> None:
    (tmp_path / "latest.json").write_text("[")
    with pytest.raises(UsageError, match=r"cannot load the model: .*latest\.json is damaged"):
        newest_model(str(tmp_path))
