"""The models in the hands of transformers' Trainer and pipelines, without glue (docs/model.md)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from cvt import CvtConfig, CvtForImageClassification, CvtImageProcessor, CvtModel, weights_hash
from tests.support.models.oracle import SMALL, images


def build(**fields: Any) -> CvtForImageClassification:
    return CvtForImageClassification(CvtConfig(**SMALL | {"num_labels": 3} | fields))


class Colours(torch.utils.data.Dataset[dict[str, Any]]):
    """Images of one colour each, which is their class."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> dict[str, Any]:
        pixels = 0.1 * images(1, 32, 32, seed=i)[0]
        pixels[i % 3] += 1
        return {"pixel_values": pixels, "labels": i % 3}


def accuracy(evaluated: Any) -> dict[str, float]:
    logits, labels = evaluated
    return {"accuracy": float((logits.argmax(axis=1) == labels).mean())}


def trainer(model: Any, folder: Path, **arguments: Any) -> Any:
    return transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            save_strategy="no",
            **arguments,
        ),
        train_dataset=Colours(),
        eval_dataset=Colours(),
        compute_metrics=accuracy,
        processing_class=CvtImageProcessor(size=32),
    )


@pytest.mark.filterwarnings("ignore")  # of transformers and accelerate, about each other
@pytest.mark.parametrize(
    "arguments",
    [
        {"max_steps": 30},
        {"max_steps": 2, "label_smoothing_factor": 0.1},
        {"max_steps": 2, "bf16": True},
        {"max_steps": 2, "activation_checkpointing": True},
    ],
    ids=str,
)
def test_the_trainer_trains_evaluates_and_saves(arguments: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(drop_path_rate=[0.0] * 3)
    training = trainer(model, tmp_path, **arguments)
    training.train()
    found = training.evaluate()
    assert np.isfinite(found["eval_loss"])
    if arguments["max_steps"] == 30:
        assert found["eval_accuracy"] == 1.0
    assert training.predict(Colours()).predictions.shape == (12, 3)
    assert model.is_gradient_checkpointing == ("activation_checkpointing" in arguments)
    training.save_model(str(tmp_path / "saved"))
    again = CvtForImageClassification.from_pretrained(tmp_path / "saved", config=model.config)
    assert weights_hash(again) == weights_hash(model)
    assert CvtImageProcessor.from_pretrained(tmp_path / "saved").size == 32


@pytest.mark.filterwarnings("ignore")
def test_the_classification_pipeline_takes_model_and_processor() -> None:
    names = ["cat", "dog", "ox"]
    model, processor = build(id2label=names).eval(), CvtImageProcessor(size=32)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    classify = transformers.pipeline(
        "image-classification", model=model, image_processor=processor, device="cpu"
    )
    best, *others = classify(image)
    expected = model(processor(image)).logits.softmax(dim=1)[0]
    assert best["label"] == names[int(expected.argmax())]
    assert best["score"] == pytest.approx(expected.max().item())
    assert {row["label"] for row in [best, *others]} == set(names)
    assert len(classify([image] * 3, batch_size=2)) == 3


def test_what_notebooks_ask_of_a_model() -> None:
    model = build().bfloat16()
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.bfloat16)
    with torch.device("meta"):
        assert CvtModel(CvtConfig()).device.type == "meta"
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())
    model.backbone.freeze()
    assert model.num_parameters(only_trainable=True) == 2 * 48 + 3 * 48 + 3
    assert model.base_model is model.backbone is model.backbone.base_model
    assert model.num_labels == model.backbone.num_labels == 3
    assert not model.can_generate()


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
def test_checkpointing_switches_on_the_classifier(name: str) -> None:
    """Under the names of before release 5 of transformers, and of since."""
    model: Any = build()
    for part in (model, model.backbone):
        getattr(part, f"{name}_enable")()
        assert all(stage.gradient_checkpointing for stage in model.backbone.stages)
        assert getattr(model, f"is_{name}")
        getattr(model, f"{name}_disable")()
        assert not getattr(part, f"is_{name}")


def test_other_ways_of_checkpointing_are_refused() -> None:
    model = build()
    for how in (False, True):
        model.gradient_checkpointing_enable({"use_reentrant": how})
    with pytest.raises(ValueError, match="no option context_fn"):
        model.gradient_checkpointing_enable({"context_fn": None})
    with pytest.raises(ValueError, match="every block"):
        model.activation_checkpointing_enable(every_n_layers=2)


def test_results_as_a_plain_tuple() -> None:
    model, x, labels = build().eval(), images(2, 32, 32), torch.tensor([0, 1])
    loss, logits = model(pixel_values=x, labels=labels, return_dict=False)
    out = model(x, labels=labels, return_dict=True)
    assert torch.equal(loss, out.loss)
    assert torch.equal(logits, out.logits)
    maps, cls = model.backbone(x, return_dict=False)
    assert (type(maps), cls.shape) == (torch.Tensor, (2, 1, 48))


def test_the_configuration_may_ask_for_hidden_states() -> None:
    model, x = build().eval(), images(1, 32, 32)
    model.config.output_hidden_states = model.config.output_attentions = True
    for part in (model, model.backbone):
        assert len(part(x).hidden_states) == 3
        assert part(x, output_hidden_states=False).hidden_states is None
        assert len(part(x).attentions) == 6
