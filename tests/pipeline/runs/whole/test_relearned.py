"""The night after a fine-tuning: in the relabelled table, the new model has nothing to compute."""

from pathlib import Path

import pytest

from pipeline.contract.manifest import Counts
from pipeline.contract.spec import (
    FinetuneSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    RelabelSpec,
    RunSpec,
)
from pipeline.runs.finetune.job import finetune
from pipeline.runs.relabel.job import relabel
from pipeline.runs.run import run
from tests.support.inputs.images import write_images


@pytest.mark.usefixtures("ray_local")
def test_the_next_night_goes_on(tmp_path: Path, checkpoint: Path) -> None:
    out, new, models = (str(tmp_path / name) for name in ("out", "new", "models"))
    for seed, kind in enumerate(("ant", "bee")):
        write_images(tmp_path / "in" / kind, 12, seed=seed)

    def night(output: str, model: str) -> RunSpec:
        return RunSpec(
            inputs=InputSpec(uris=(str(tmp_path / "in"),)),
            model=ModelSpec(source=model),
            output=OutputSpec(uri=output, top_k=5, embeddings=True),
        )

    run(night(out, str(checkpoint)))
    learn = FinetuneSpec(
        outputs=(out,), output=models, model=str(checkpoint), label_from="directory", val_share=0.4
    )
    model = finetune(learn)
    relabel(RelabelSpec(source=out, output=new, model=models))
    nothing = run(night(new, models))
    assert nothing.counts == Counts(listed=24, ok=0, failed=0, skipped=24)
    assert "execute" not in nothing.manifest.timings.phases
    assert nothing.manifest.model.model == model.model_uri
    write_images(tmp_path / "in" / "new", 1, seed=5)
    one = run(night(new, models))
    assert one.counts == Counts(listed=25, ok=1, failed=0, skipped=24)
    assert set(one.manifest.labels) <= {"ant", "bee"}
