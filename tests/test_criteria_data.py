"""Criteria that look at data, against finite differences, loops and cases worked by hand."""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import SmallStock, grouped, randomise
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from course_lib.pruning import (
    CRITERIA,
    Group,
    PruningError,
    apoz,
    cosine,
    find_groups,
    fisher,
    masked,
    obd,
    obd_exact,
    select,
    taylor,
)
from course_lib.resnet import ResNet, ResNetConfig, resnet_config

EVERY = {**CRITERIA, "obd_exact": obd_exact}
DATA_AWARE = ("apoz", "taylor", "fisher", "obd", "critical")
Batch = tuple[Tensor, Tensor]


def bottleneck() -> nn.Module:
    """Grey images; widths that differ, as after pruning; a block with a projection, one without."""
    blocks = [
        {"widths": [3, 2, 4], "projection": "norm"},
        {"widths": [2, 3, 4], "projection": "none"},
    ]
    config = {"stem": 3, "stages": [blocks], "classes": 3, "channels": 1, "small_images": True}
    return ResNet(ResNetConfig.from_dict(config))


def chain() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Conv2d(4, 3, 1)),
        *(nn.LeakyReLU(), nn.Flatten(), nn.Linear(3 * 4, 5), nn.ReLU(), nn.Linear(5, 3)),
    )


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "all": lambda: ResNet(resnet_config(18, 3, base_width=2, small_images=True)),
    "stock": lambda: SmallStock(BasicBlock, [1, 2, 1, 1], [2, 2, 3, 3], 3),
    "bottleneck": bottleneck,
    "chain": chain,
    "grouped": grouped,
}


def case(name: str) -> tuple[nn.Module, dict[str, Group], Batch]:
    """A network in double precision, its groups, and seven images with labels."""
    network = randomise(BUILDERS[name]().double(), seed=4)
    channels = next(m for m in network.modules() if isinstance(m, nn.Conv2d)).in_channels
    generator = torch.Generator().manual_seed(5)
    size = 8 if name == "chain" else 16
    shape = (7, channels, size, size)
    images = torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (7,), generator=generator)
    return network, find_groups(network, images), (images, labels)


def scaled(network: nn.Module, group: Group, index: int, factor: float) -> list:
    """Hooks that scale one channel where it is read."""

    def hook(columns: int) -> Callable:
        def scale(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            x = inputs[0].clone()
            x[:, index * columns : (index + 1) * columns] *= factor
            return (x,)

        return scale

    return [
        network.get_submodule(reader).register_forward_pre_hook(hook(columns))
        for reader, columns in group.readers
    ]


@torch.no_grad()
def slow_gradients(network: nn.Module, group: Group, batch: Batch) -> Tensor:
    """∂loss/∂gate, [images, size], by central differences, one image and one index at a time."""
    network.eval()
    step = 1e-6
    gradients = torch.empty(len(batch[0]), group.size, dtype=torch.float64)
    for number, (image, label) in enumerate(zip(*batch, strict=True)):
        for index in range(group.size):
            losses = []
            for factor in (1 + step, 1 - step):
                hooks = scaled(network, group, index, factor)
                losses.append(F.cross_entropy(network(image[None]), label[None]))
                for handle in hooks:
                    handle.remove()
            gradients[number, index] = (losses[0] - losses[1]) / (2 * step)
    return gradients


@pytest.mark.parametrize("name", list(BUILDERS))
def test_taylor_and_fisher_against_finite_differences(name: str) -> None:
    network, groups, batch = case(name)
    first, second = (criterion(network, groups, [batch]) for criterion in (taylor, fisher))
    assert list(first) == list(second) == list(groups)
    seen = 0.0
    for group in groups.values():
        slow = slow_gradients(network, group, batch)
        torch.testing.assert_close(first[group.name], slow.abs().mean(0), rtol=1e-5, atol=1e-8)
        expected = (slow**2).mean(0) / 2
        torch.testing.assert_close(second[group.name], expected, rtol=1e-5, atol=1e-8)
        seen = max(seen, slow.abs().max().item())
    assert seen > 1e-2, "the gradients mustn't all be nearly zero"


@torch.no_grad()
def slow_apoz(network: nn.Module, group: Group, images: Tensor) -> list[float]:
    zeros, values = [0] * group.size, [0] * group.size
    for reader, columns in group.readers:
        read: list[Tensor] = []
        layer = network.get_submodule(reader)
        handle = layer.register_forward_pre_hook(
            lambda _, inputs, read=read: read.append(inputs[0])
        )
        for image in images:
            network.eval()(image[None])
        handle.remove()
        for x in read:
            for column, channel in enumerate(x[0]):
                for value in channel.flatten().tolist():
                    zeros[column // columns] += value == 0
                    values[column // columns] += 1
    return [zero / value for zero, value in zip(zeros, values, strict=True)]


@pytest.mark.parametrize("name", list(BUILDERS))
def test_apoz_against_a_loop_over_every_value(name: str) -> None:
    network, groups, batch = case(name)
    scores = apoz(network, groups, [batch])
    assert list(scores) == list(groups)
    for group in groups.values():
        expected = [1 - share for share in slow_apoz(network, group, batch[0])]
        assert scores[group.name].tolist() == pytest.approx(expected, abs=1e-12)
    assert 0 < torch.cat(list(scores.values())).mean() < 1


def test_a_network_worked_by_hand() -> None:
    """Two hidden units that pass on what they get: logits (1, 2) and then (3, 0), both class 0."""
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    for layer in (network[0], network[2]):
        layer.weight.data = torch.eye(2)
    images = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    batches = [(images, torch.tensor([0, 0]))]
    groups = find_groups(network, images)
    p, q = 1 / (1 + math.exp(2 - 1)), 1 / (1 + math.exp(0 - 3))  # of class 0
    # ∂loss/∂logit is the probability, less 1 for the right class; times the channel's value.
    first, second = ((p - 1) * 1, (1 - p) * 2), ((q - 1) * 3, 0.0)
    expected = [(abs(a) + abs(b)) / 2 for a, b in zip(first, second, strict=True)]
    assert taylor(network, groups, batches)["0"].tolist() == pytest.approx(expected)
    expected = [(a * a + b * b) / 2 / 2 for a, b in zip(first, second, strict=True)]
    assert fisher(network, groups, batches)["0"].tolist() == pytest.approx(expected)
    assert apoz(network, groups, batches)["0"].tolist() == [1.0, 0.5]


def test_apoz_of_a_sigmoid_says_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Sigmoid(), nn.Conv2d(3, 2, 1), nn.Flatten())
    batches = [(torch.randn(2, 1, 2, 2), torch.tensor([0, 1]))]
    assert apoz(network, find_groups(network, batches[0][0]), batches)["0"].tolist() == [1, 1, 1]


@torch.no_grad()
def test_a_gate_at_zero_is_what_surgery_removes() -> None:
    """So the slow gradients above are those along the way to the removed channel."""
    network, groups, (images, _) = case("stock")
    group = groups["conv1"]  # coupled: the stem and the ends of the first stage's blocks
    assert len(group.producers) > 1
    whole = network.eval()(images)
    with masked(network, groups, {"conv1": torch.tensor([0])}):
        expected = network(images)
    hooks = scaled(network, group, 1, 0.0)
    assert torch.equal(network(images), expected) and not torch.equal(whole, expected)
    for handle in hooks:
        handle.remove()
    assert torch.equal(network(images), whole)


def split(batch: Batch, sizes: list[int], order: list[int]) -> list[Batch]:
    images, labels = (tensor[order] for tensor in batch)
    return list(zip(images.split(sizes), labels.split(sizes), strict=True))


@pytest.mark.parametrize("criterion", ["apoz", "taylor", "fisher"])
@pytest.mark.parametrize("name", ["stock", "chain"])
def test_neither_batch_size_nor_order_matters(name: str, criterion: str) -> None:
    network, groups, batch = case(name)
    whole = CRITERIA[criterion](network, groups, [batch])
    for sizes in ([1] * 7, [3, 4], [5, 2]):
        parts = split(batch, sizes, [3, 0, 6, 1, 5, 2, 4])
        torch.testing.assert_close(
            CRITERIA[criterion](network, groups, parts), whole, rtol=1e-9, atol=1e-15
        )


def snapshot(network: nn.Module) -> list:
    """All that a criterion might leave changed, as it is now."""
    parameters = [
        (p.requires_grad, p.data_ptr(), None if p.grad is None else p.grad.clone())
        for p in network.parameters()
    ]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    modules = [
        (m.training, len(m._forward_pre_hooks), len(m._forward_hooks)) for m in network.modules()
    ]
    return [parameters, state, modules]


def assert_same(before: list, after: list) -> None:
    assert before[2] == after[2]
    assert [p[:2] for p in before[0]] == [p[:2] for p in after[0]]
    gradients = [[p[2] for p in parameters] for parameters in (before[0], after[0])]
    for mine, theirs in zip(*gradients, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.equal(mine, theirs)
    assert all(torch.equal(value, after[1][name]) for name, value in before[1].items())


def in_use(name: str) -> tuple[nn.Module, dict[str, Group], Batch]:
    """A network in use: with gradients, a frozen layer, one layer in evaluation mode."""
    network, groups, batch = case(name)
    F.cross_entropy(network.train()(batch[0]), batch[1]).backward()
    first = next(iter(groups))
    network.get_submodule(first).requires_grad_(False)
    network.get_submodule(first).weight.grad = None
    network.get_submodule(next(iter(groups.values())).readers[0][0]).eval()
    return network, groups, batch


@pytest.mark.parametrize("criterion", list(EVERY))
def test_the_network_is_left_as_it_was(criterion: str) -> None:
    network, groups, batch = in_use("bottleneck")
    before = snapshot(network)
    with torch.no_grad():
        scores = EVERY[criterion](network, groups, [batch])
    assert_same(before, snapshot(network))
    assert list(scores) == list(groups)
    for name, group in groups.items():
        score = scores[name]
        assert score.shape == (group.size,) and score.is_floating_point()
        assert score.device.type == "cpu" and not score.requires_grad
        assert not score.isnan().any()
    assert select(scores, fraction=0.5)


def interrupted(batch: Batch, error: BaseException) -> Iterator[Batch]:
    yield batch
    raise error


@pytest.mark.parametrize("criterion", [*DATA_AWARE, "obd_exact"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk")], ids=["ctrl-c", "disk"])
def test_the_network_is_left_as_it_was_by_an_error_too(
    criterion: str, error: BaseException
) -> None:
    network, groups, batch = in_use("chain")
    before = snapshot(network)
    with pytest.raises(type(error)):
        EVERY[criterion](network, groups, interrupted(batch, error))
    assert_same(before, snapshot(network))
    wrong = (batch[0][:, :1], batch[1])  # one channel where the network takes three
    with pytest.raises(RuntimeError):
        EVERY[criterion](network, groups, [wrong])
    assert_same(before, snapshot(network))


@pytest.mark.parametrize("criterion", [*DATA_AWARE, "obd_exact"])
def test_without_images_it_says_so(criterion: str) -> None:
    network, groups, batch = case("chain")
    score = EVERY[criterion]
    with pytest.raises(PruningError, match=f"{criterion} looks at data"):
        score(network, groups)
    used_up = iter([batch])
    next(used_up)
    for empty in ([], used_up, [(batch[0][:0], batch[1][:0])]):
        with pytest.raises(PruningError, match=f"{criterion} was given batches without an image"):
            score(network, groups, empty)


# critical runs a traced copy, which has no hooks; its bound on memory is tested in test_ablation.
@pytest.mark.parametrize("criterion", [name for name in DATA_AWARE if name != "critical"])
def test_no_batch_is_held_longer_than_the_next(criterion: str) -> None:
    """So a data set of any size takes no more memory."""
    network, groups, batch = case("chain")
    made: list[weakref.ref[Tensor]] = []
    network.register_forward_hook(lambda _, inputs, output: made.append(weakref.ref(output)))
    alive = []

    def watched() -> Iterator[Batch]:
        for _ in range(4):
            images = batch[0].repeat(6, 1, 1, 1)
            made.append(weakref.ref(images))
            yield images, batch[1].repeat(6)
            del images
            alive.append(sum(reference() is not None for reference in made))

    CRITERIA[criterion](network, groups, watched())
    assert len(made) >= 8 and max(alive) <= 2, "the last images and what came out for them"


def test_weights_need_no_images() -> None:
    network, groups, _ = case("chain")
    for name in set(CRITERIA) - set(DATA_AWARE) - {"bn_scale"}:
        assert list(CRITERIA[name](network, groups)) == list(groups)
    assert cosine(network, groups)["0"].isinf().sum() == 1


def test_the_documents_examples_are_criteria() -> None:
    """docs/criteria.md shows how to add one's own."""
    text = (Path(__file__).parent.parent / "docs" / "criteria.md").read_text(encoding="utf-8")
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    network, groups, batch = case("stock")
    weights = [network.get_submodule(producer).weight for producer in groups["conv1"].producers]
    expected = sum(weight[1].abs().sum() for weight in weights)
    count = sum(weight[1].numel() for weight in weights)
    mean = names["mean_weight"](network, groups)
    assert mean["conv1"][1].item() == pytest.approx((expected / count).item())
    roots = names["root_taylor"](network, groups, [batch])
    slow = slow_gradients(network, groups["conv1"], batch)
    torch.testing.assert_close(roots["conv1"], slow.abs().sqrt().mean(0), rtol=1e-4, atol=1e-6)


def test_every_criterion_is_in_the_document() -> None:
    text = (Path(__file__).parent.parent / "docs" / "criteria.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text.split("## What there is")[1].split("## ")[0]))
    assert set(EVERY) <= named


@pytest.mark.parametrize("name", [*CRITERIA, "obd_exact"])
def test_no_groups_have_no_scores(name):
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    batch = torch.randn(2, 3, 4, 4), torch.tensor([0, 1])
    assert (obd_exact if name == "obd_exact" else CRITERIA[name])(network, {}, [batch]) == {}


def test_an_answer_that_is_dropped():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.side, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(4, 3)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            self.head(self.side(x).mean((2, 3)))
            return self.fc(torch.relu(self.conv(x)).mean((2, 3)))

    network, images = Net(), torch.randn(2, 3, 4, 4)
    groups = find_groups(network, images)
    for criterion in (taylor, fisher, obd, obd_exact):
        scores = criterion(network, groups, [(images, torch.tensor([0, 1]))])
        assert scores["side"].tolist() == [0] * 4 and scores["conv"].min() > 0
