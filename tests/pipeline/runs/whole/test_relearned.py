"""The night after a fine-tuning: in the relabelled table, the new model has nothing to compute; in
the old one, it says what to do."""

import logging
from pathlib import Path

import pytest

from pipeline.contract.errors import UsageError
from pipeline.contract.manifest import Counts
from pipeline.contract.spec import (
    ComputeSpec,
    FinetuneSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    PolicySpec,
    RelabelSpec,
    RunSpec,
)
from pipeline.runs.finetune.job import finetune
from pipeline.runs.relabel.job import relabel
from pipeline.runs.run import run
from tests.support.inputs.images import write_images
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.seaweedfs import Bucket

IMAGES = r".*/in/.+\.jpg"


@pytest.mark.usefixtures("ray_local")
def test_the_next_night_goes_on(
    tmp_path: Path,
    checkpoint: Path,
    s3_bucket: Bucket,
    fault_proxy: FaultProxy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is read, the server of the images counts."""
    out, new, models = (str(tmp_path / name) for name in ("out", "new", "models"))
    for seed, kind in enumerate(("ant", "bee")):
        write_images(tmp_path / "images" / kind, 12, seed=seed)
    s3_bucket.put_tree(tmp_path / "images", "in/")

    def night(output: str, model: str, *, full: bool = False) -> RunSpec:
        return RunSpec(
            inputs=InputSpec(uris=(f"{s3_bucket.uri}/in",)),
            model=ModelSpec(source=model),
            output=OutputSpec(uri=output, top_k=5, embeddings=True),
            compute=ComputeSpec(num_actors=1),
            policy=PolicySpec(full=full),
        )

    first = run(night(out, str(checkpoint)))
    assert fault_proxy.count("GET", path=IMAGES) == 24
    learn = FinetuneSpec(
        outputs=(out,), output=models, model=str(checkpoint), label_from="directory", val_share=0.4
    )
    model = finetune(learn)

    with pytest.raises(UsageError) as refused:
        run(night(out, models))
    message = str(refused.value)
    assert f"the model was {checkpoint} and is now {model.model_uri}: policy.full" in message
    assert f"`cvt-relabel {out} --output NEW_OUT --model {model.model_uri}`" in message

    relabel(RelabelSpec(source=out, output=new, model=models))
    with caplog.at_level(logging.INFO, "pipeline"):
        nothing = run(night(new, models))
    assert f"model: {model.model_uri}, as in the last run" in caplog.text
    assert nothing.counts == Counts(listed=24, ok=0, failed=0, skipped=24)
    assert nothing.manifest.model.model == model.model_uri
    assert fault_proxy.count("GET", path=IMAGES) == 24

    s3_bucket.put("in/new.jpg", (tmp_path / "images" / "bee" / "0000.jpg").read_bytes())
    one = run(night(new, models))
    assert one.counts == Counts(listed=25, ok=1, failed=0, skipped=24)
    assert set(one.manifest.labels) <= {"ant", "bee"}
    assert fault_proxy.count("GET", path=IMAGES) == 25

    assert first.manifest.model_before is None
    full = run(night(out, models, full=True))
    assert full.manifest.model_before == str(checkpoint)
    assert f"{model.model_uri}, not {checkpoint}" in Path(full.report_uri).read_text()
