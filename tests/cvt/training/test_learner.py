"""Training: the same numbers as transformers' Trainer, however it is shared out or interrupted."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812, PyTorch's own name for it
import transformers
from torch import Tensor
from torch.utils.data import DataLoader

from cvt import CvtConfig, CvtForImageClassification
from cvt.checkpoints.layouts import translate
from cvt.training.learner import Learner
from cvt.training.optimizer import make_optimizer, make_schedule, parameter_groups
from cvt.training.pictures.mixup import Blend
from cvt.training.recipe import Portion, Recipe, batches
from tests.support.models.oracle import SMALL, oracle

COUNT, SIZE = 96, 24
RECIPE = Recipe(epochs=5, batch_size=12, learning_rate=1e-3, frozen_statistics=False)
STEPS = RECIPE.epochs * COUNT // RECIPE.batch_size
NO_DROPS: dict[str, Any] = {"drop_path_rate": [0.0] * 3}
DROPS: dict[str, Any] = {"drop_path_rate": [0.0, 0.2, 0.2], "drop_rate": [0.1] * 3}
Data = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def data() -> Data:
    """Images whose class shows as a colour."""
    random = torch.Generator().manual_seed(0)
    targets = torch.arange(COUNT) % 7
    colours = torch.randn(7, 3, 1, 1, generator=random)
    return torch.randn(COUNT, 3, SIZE, SIZE, generator=random) + colours[targets], targets


def small(**fields: Any) -> CvtForImageClassification:
    torch.manual_seed(3)
    return CvtForImageClassification(CvtConfig.from_dict(SMALL | fields))


def learn(learner: Learner, data: Data, epochs: range) -> list[float]:
    images, targets = data
    return [
        learner.step(images[batch], targets[batch])
        for epoch in epochs
        for batch in batches(COUNT, learner.recipe, epoch)
    ]


class InOurOrder(transformers.Trainer):  # type: ignore[misc]  # has no types
    """transformers' Trainer on given batches; keeps the exact losses."""

    losses: list[float]

    def get_train_dataloader(self) -> Any:
        self.losses = []
        epochs = (batches(COUNT, RECIPE, epoch) for epoch in range(RECIPE.epochs))
        order = [batch.tolist() for epoch in epochs for batch in epoch]
        return DataLoader(self.train_dataset, batch_sampler=order)

    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        found = super().compute_loss(*arguments, **options)
        loss = found[0] if isinstance(found, tuple) else found
        self.losses.append(float(loss.detach()))
        return found


def theirs(
    model: Any, groups: list[dict[str, Any]], data: Data, folder: Path, smoothing: float
) -> list[float]:
    """The losses of a training by transformers, with these groups of parameters."""
    optimizer = make_optimizer(groups)
    rows = [{"pixel_values": image, "labels": target} for image, target in zip(*data, strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), num_train_epochs=1, max_grad_norm=RECIPE.clip, use_cpu=True,
        label_smoothing_factor=smoothing, save_strategy="no", logging_strategy="no",
        report_to=[], disable_tqdm=True,
    )  # fmt: skip
    schedule = make_schedule(optimizer, STEPS, RECIPE.warmup_share)
    trainer = InOurOrder(model, arguments, train_dataset=rows, optimizers=(optimizer, schedule))
    trainer.train()
    return trainer.losses


def both(
    data: Data, folder: Path, smoothing: float, **fields: Any
) -> tuple[list[float], list[float], Tensor, Tensor]:
    """The losses and the logits of our training, and of theirs."""
    reference = oracle(**SMALL, **NO_DROPS, **fields)
    reference.save_pretrained(folder)
    model = CvtForImageClassification.from_pretrained(folder)
    named = translate(dict(reference.named_parameters()), "hugging_face", "ours")
    groups = parameter_groups(model, RECIPE.learning_rate, RECIPE.weight_decay)
    for group in groups:
        group["params"] = [named[name] for name in group["names"]]
    expected = theirs(reference, groups, data, folder, smoothing)
    found = learn(Learner(model, RECIPE, STEPS), data, range(RECIPE.epochs))
    with torch.inference_mode():
        ours, other = model.eval()(data[0]).logits, reference.eval()(data[0]).logits
    return found, expected, ours, other


def test_losses_and_predictions_are_those_of_transformers_trainer(
    data: Data, tmp_path: Path
) -> None:
    found, expected, ours, other = both(data, tmp_path, RECIPE.smoothing)
    assert len(found) == len(expected) == 40
    assert np.abs(np.array(found) - expected).max() < 1e-5
    assert found[-1] < 0.7 * found[0]
    assert torch.equal(ours.argmax(dim=1), other.argmax(dim=1))


@pytest.fixture
def of_sets(data: Data) -> Data:
    """Images that show their class, the next one or both, and some of which are labelled with
    none."""
    images, targets = data
    present = torch.nn.functional.one_hot(targets, 7)
    present[::3] += present[::3].roll(1, dims=1)
    present[::5] = 0
    return images, present.float()


def test_with_several_labels_they_are_those_of_transformers_trainer_too(
    of_sets: Data, tmp_path: Path
) -> None:
    found, expected, ours, other = both(
        of_sets, tmp_path, 0.0, problem_type="multi_label_classification"
    )
    assert len(found) == len(expected) == 40
    assert np.abs(np.array(found) - expected).max() < 1e-5
    assert found[-1] < 0.7 * found[0]
    assert torch.equal(ours > 0, other > 0)


def test_with_several_labels_a_presence_counts_by_its_weight(of_sets: Data) -> None:
    """As PyTorch's pos_weight has it, where absences count 1; three workers find what one does."""
    images, present = of_sets[0][:12], of_sets[1][:12]
    model = small(**NO_DROPS, problem_type="multi_label_classification").eval()
    weights = tuple(0.5 * number + 0.5 for number in range(7))
    recipe = replace(
        RECIPE, class_weights=weights, absent_weights=(1.0,) * 7, frozen_statistics=True
    )
    with torch.inference_mode():
        logits = model(images).logits
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(weights))
    assert Learner(model, recipe, STEPS).step(images, present.long()) == pytest.approx(
        float(loss(logits, present)), rel=1e-5
    )
    fields = {"problem_type": "multi_label_classification"}
    one, several = (shared(of_sets, count, replace(recipe, clip=1e9), **fields) for count in (1, 3))
    assert apart(one, several) < 1e-12


@pytest.mark.parametrize("recipe", [RECIPE, replace(RECIPE, ema=0.9, mixup=0.2)])
def test_whoever_takes_up_a_state_goes_on_as_if_nothing_had_been(
    data: Data, recipe: Recipe
) -> None:
    """Bit for bit, with everything that draws at random."""
    whole = Learner(small(**DROPS), recipe, STEPS)
    expected = learn(whole, data, range(3))
    first = Learner(small(**DROPS), recipe, STEPS)
    losses = learn(first, data, range(1))
    state = copy.deepcopy(first.state())
    torch.manual_seed(99)
    second = Learner(small(**DROPS, num_labels=7), recipe, STEPS)
    second.take_up(state)
    losses += learn(second, data, range(1, 3))
    assert losses == expected
    for one, another in ((whole.model, second.model), (whole.learned, second.learned)):
        ours, other = one.state_dict(), another.state_dict()
        assert all(torch.equal(ours[name], other[name]) for name in ours)


@pytest.mark.parametrize("weights", [(), tuple(0.4 * number + 0.1 for number in range(7))])
def test_a_step_on_blended_images_costs_what_their_parts_do(
    data: Data, weights: tuple[float, ...]
) -> None:
    """With the weights of the classes, and smoothing where PyTorch knows it with soft targets."""
    recipe = replace(
        RECIPE, frozen_statistics=True, mixup=4.0, class_weights=weights,
        smoothing=0.0 if weights else RECIPE.smoothing,
    )  # fmt: skip
    learner = Learner(small(**NO_DROPS), recipe, STEPS)
    share = Blend.draw(4.0, recipe.seed, 0, 0).share
    assert 0.1 < share < 0.9
    images, one_hot = data[0][:10], F.one_hot(data[1][:10]).float()
    with torch.no_grad():
        mixed = share * images + (1 - share) * images.roll(1, 0)
        logits = learner.model.eval()(mixed).logits
    expected = F.cross_entropy(
        logits, share * one_hot + (1 - share) * one_hot.roll(1, 0), reduction="none",
        weight=torch.tensor(weights) if weights else None, label_smoothing=recipe.smoothing,
    ).mean()  # fmt: skip
    assert learner.step(images, data[1][:10]) == pytest.approx(float(expected), rel=1e-5)


def shared(data: Data, workers: int, recipe: Recipe, **fields: Any) -> Tensor:
    """The gradient of one step on ten images, as data-parallel workers average it, float64 (P,);
    paths are dropped."""
    images, targets = data[0][:10].double(), data[1][:10]
    found = []
    for rank in range(workers):
        model = small(drop_path_rate=[0.0, 0.2, 0.4], **fields).double()
        learner = Learner(model, recipe, STEPS)
        portion = Portion(len(images), rank, workers)
        learner.step(images[portion.places], targets[portion.places], portion)
        gradients = [parameter.grad for parameter in learner.model.parameters()]
        found.append(torch.cat([one.flatten() for one in gradients if one is not None]))
    return torch.stack(found).mean(dim=0)


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / one.norm())


@pytest.mark.parametrize(("workers", "frozen"), [(2, True), (3, True), (11, True), (3, False)])
def test_frozen_statistics_make_the_number_of_workers_irrelevant(
    data: Data, workers: int, frozen: bool
) -> None:
    """Though they have unequally many images, and one of eleven has none."""
    recipe = replace(RECIPE, frozen_statistics=frozen, clip=1e9)
    one, several = shared(data, 1, recipe), shared(data, workers, recipe)
    assert (apart(one, several) < 1e-12) == frozen


def test_the_weight_of_a_class_counts_like_copies_of_its_images(data: Data) -> None:
    """Three of each image of class 2, as a weight of 3 has it, on as many images as there are."""
    images, targets = data[0][:14], data[1][:14]
    weights = tuple(3.0 if number == 2 else 1.0 for number in range(7))
    recipe = replace(RECIPE, frozen_statistics=True, clip=1e9, learning_rate=0.0)
    weighted = Learner(small(**NO_DROPS), replace(recipe, class_weights=weights), STEPS)
    plain = Learner(small(**NO_DROPS), recipe, STEPS)
    copies = torch.repeat_interleave(torch.arange(14), torch.tensor(weights).long()[targets])
    grown = len(copies) / 14
    expected = grown * plain.step(images[copies], targets[copies])
    assert weighted.step(images, targets) == pytest.approx(expected, rel=1e-5)
    for ours, other in zip(weighted.model.parameters(), plain.model.parameters(), strict=True):
        assert ours.grad is not None
        assert other.grad is not None
        assert torch.allclose(ours.grad, grown * other.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("workers", [2, 3])
def test_weights_of_classes_are_the_same_for_any_number_of_workers(
    data: Data, workers: int
) -> None:
    weights = tuple(0.4 * number + 0.1 for number in range(7))
    recipe = replace(RECIPE, frozen_statistics=True, clip=1e9, class_weights=weights)
    one, several = shared(data, 1, recipe), shared(data, workers, recipe)
    assert apart(one, several) < 1e-12


def test_frozen_statistics_stay(data: Data) -> None:
    model = small()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    learn(Learner(model, replace(RECIPE, frozen_statistics=True), STEPS), data, range(1))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_frozen_stages_stay(data: Data) -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learn(Learner(model, replace(RECIPE, frozen_stages=2), STEPS), data, range(1))
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[2] for name in changed if name.startswith("backbone")} == {"2"}
    assert "head.weight" in changed


def test_an_epoch_shows_every_image_once() -> None:
    found = batches(103, replace(RECIPE, batch_size=10), 4)
    assert [len(batch) for batch in found] == [10] * 10 + [3]
    assert sorted(np.concatenate(found).tolist()) == list(range(103))
    other = batches(103, replace(RECIPE, batch_size=10), 5)
    assert not np.array_equal(found[0], other[0])


@pytest.mark.parametrize(("images", "workers"), [(10, 1), (10, 3), (2, 3)])
def test_portions_are_all_of_a_step(images: int, workers: int) -> None:
    portions = [Portion(images, rank, workers) for rank in range(workers)]
    counted = [one for one in portions if one.weight]
    seen = np.concatenate([one.places for one in counted])
    assert sorted(seen.tolist()) == list(range(images))
    assert all(one.weight == workers * len(one.places) / images for one in counted)
    assert all(one.places.tolist() == [0] for one in portions if not one.weight)
