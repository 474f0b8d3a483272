"""Ablations against one pass per filter: with the filter masked, and with it really removed."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from networks import Gated, Odd, Plus, SmallStock, cases, randomise
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.resnet import BasicBlock, Bottleneck

from course_lib.pruning import (
    Group,
    PruningError,
    ablate,
    critical,
    critical_approximate,
    find_groups,
    masked,
    overlap,
    prune,
    ranks,
    select,
)
from course_lib.pruning.ablation import first_of_each_class
from course_lib.pruning.differences import Differences
from course_lib.resnet import ResNet, resnet_config

Counts = dict[str, Tensor]


def without(groups: dict[str, Group]) -> Iterator[tuple[str, int, dict[str, Tensor]]]:
    """Every single index, and the plan that leaves it out."""
    for name, group in groups.items():
        for index in range(group.size):
            kept = [other for other in range(group.size) if other != index]
            yield name, index, {name: torch.tensor(kept, dtype=torch.long)}


def count_right(logits: Tensor, labels: Tensor, classes: int) -> list[int]:
    answers = logits.argmax(1).tolist()
    pairs = list(zip(answers, labels.tolist(), strict=True))
    return [sum(a == b == c for a, b in pairs) for c in range(classes)]


@torch.inference_mode()
def removed_one_by_one(
    network: nn.Module, groups: dict[str, Group], images: Tensor, labels: Tensor
) -> Counts:
    """Slow and obvious: really remove each filter, then validate. Needs groups of two or more."""
    network = copy.deepcopy(network).eval()
    classes = network(images).shape[1]
    counts = {name: torch.zeros(g.size, classes, dtype=torch.long) for name, g in groups.items()}
    for name, index, keep in without(groups):
        logits = prune(network, groups, keep)(images)
        counts[name][index] = torch.tensor(count_right(logits, labels, classes))
    return counts


def same(mine: Counts, theirs: Counts) -> bool:
    return list(mine) == list(theirs) and all(torch.equal(mine[n], theirs[n]) for n in mine)


def data(count: int, classes: int = 3, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)
    return images, torch.randint(classes, (count,), generator=generator)


def mixed_network(kind: str) -> nn.Module:
    """Networks with groups of two or more, in double precision, as after training."""
    small = {"base_width": 4, "small_images": True}
    if kind in ("all", "needed"):
        network: nn.Module = ResNet(resnet_config(18, 3, projection=kind, **small))
    elif kind == "bare projections":
        network = ResNet(resnet_config(18, 3, projection_norm=False, **small))
    elif kind == "bottleneck":
        config = resnet_config(50, 3, base_width=2, small_images=True)
        network = ResNet(replace(config, stages=tuple(stage[:1] for stage in config.stages[:3])))
    elif kind == "torchvision, in place":
        network = SmallStock(Bottleneck, [1, 2, 1, 1], [2, 3, 2, 3], 3)
    elif kind == "grouped":
        network = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=3)),
            *(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU()),
            *(nn.Conv2d(4, 4, 3, groups=4, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU()),
            *(nn.Conv2d(4, 4, 1, groups=2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
        )
    elif kind == "excitation":
        network = nn.Sequential(
            *(nn.Conv2d(3, 5, 3, stride=2), nn.BatchNorm2d(5), nn.ReLU(), Gated(5, 3)),
            *(nn.Conv2d(5, 4, 3), nn.ReLU(), Plus(Gated(4, 2, times=False)), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5, affine=False), nn.Linear(5, 3)),
        )
    else:
        network = nn.Sequential(
            *(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Sigmoid(), nn.MaxPool2d(2)),
            *(nn.Conv2d(5, 4, 3, padding=1, padding_mode="circular"), nn.Softplus()),
            *(nn.Conv2d(4, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU(inplace=True)),
            *(nn.Flatten(), nn.Linear(27, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)),
        )
    randomise(network.double(), seed=3)
    with torch.no_grad():  # so that it doesn't give one answer to everything
        *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
        last.bias -= network.eval()(data(40)[0]).mean(0)
    return network


KINDS = [
    "all",
    "needed",
    "bare projections",
    "bottleneck",
    "torchvision, in place",
    "chain",
    "excitation",
    "grouped",
]


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_of_networks_without_the_filter(kind: str) -> None:
    network, (images, labels) = mixed_network(kind), data(12)
    groups = find_groups(network, images[:1])
    mine = ablate(network, groups, [(images, labels)])
    assert same(mine, removed_one_by_one(network, groups, images, labels))
    assert len({tuple(row) for counts in mine.values() for row in counts.tolist()}) > 3


@given(cases())
@settings(max_examples=settings.default.max_examples // 2)
def test_logits_are_those_of_the_masked_network(case) -> None:
    network, images = case.network, case.images
    groups = find_groups(network, images)
    network.eval()
    if any(getattr(m, "running_mean", 0) is None for m in network.modules()):
        with pytest.raises(PruningError, match="keeps no running statistics"):
            Differences(network, groups)
        return
    with torch.inference_mode():
        differences = Differences(network, groups)
        values = differences.run(images)
        clean = network(images)
        expected = {}
        for name, index, keep in without(groups):
            if len(keep[name]):
                with masked(network, groups, keep):
                    expected[name, index] = network(images)
        scale = max([1, clean.abs().max(), *(logits.abs().max() for logits in expected.values())])
        assert (values[differences.output] - clean).abs().max() <= 1e-9 * scale
        present = differences.present(values)
        for image in range(len(images)):
            one = {node: value[image : image + 1] for node, value in values.items()}
            left = set(expected)
            for sweep in differences.sweeps(one, [p[image] for p in present], most=500):
                logits = differences.logits(one, sweep)
                for rows in sweep:
                    name = differences.groups[rows.number].name
                    for index, found in zip(
                        rows.indices.tolist(), logits[rows.start : rows.stop], strict=True
                    ):
                        if (name, index) in expected:
                            gap = (found - expected[name, index][image]).abs().max()
                            assert gap <= 1e-9 * scale
                            left.remove((name, index))
            for key in left:  # channels that are zero
                assert (clean[image] - expected[key][image]).abs().max() <= 1e-9 * scale


def quarter_width() -> tuple[nn.Module, dict[str, Group], Tensor, Tensor]:
    network = ResNet(resnet_config(18, 8, base_width=16))
    randomise(network, seed=2)
    images, labels = data(24, classes=8, size=48)
    return network, find_groups(network, images[:1].float()), images.float(), labels


@torch.inference_mode()
def test_a_quarter_of_resnet18_agrees_to_rounding() -> None:
    network, groups, images, labels = quarter_width()
    mine = ablate(network, groups, [(images, labels)])
    network.eval()
    checked = differing = 0
    for number, (name, index, keep) in enumerate(without(groups)):
        if number % 16 == 0:
            with masked(network, groups, keep):
                logits = network(images)
            top = logits.topk(2).values
            close = int((top[:, 0] - top[:, 1] < 1e-4 * logits.abs().max()).sum())
            theirs = count_right(logits, labels, 8)
            gap = sum(abs(a - b) for a, b in zip(mine[name][index].tolist(), theirs, strict=True))
            assert gap <= close
            checked, differing = checked + 1, differing + gap
    assert checked == 61 and differing <= 1


class Viewed(SmallStock):
    """Flattens as most networks written by hand do, and takes an argument that nobody gives."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x if mask is None else x * mask
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        return self.fc(x.view(x.size(0), -1))


def test_a_view_is_a_flatten_here_too() -> None:
    stock, viewed = (
        kind(BasicBlock, [1, 1, 1, 1], [2, 3, 4, 5], 3).eval() for kind in (SmallStock, Viewed)
    )
    viewed.load_state_dict(randomise(stock, 0).state_dict())
    images, labels = torch.randn(6, 3, 32, 32), torch.arange(6) % 3
    counts = [
        ablate(network, find_groups(network, images), [(images, labels)])
        for network in (stock, viewed)
    ]
    assert list(counts[0]) == list(counts[1])
    assert all(torch.equal(mine, counts[1][name]) for name, mine in counts[0].items())


def test_neither_batch_size_nor_memory_changes_a_count() -> None:
    network, (images, labels) = mixed_network("torchvision, in place"), data(40)
    groups = find_groups(network, images[:1])
    whole = ablate(network, groups, [(images, labels)])
    pairs = list(zip(images.split(7), labels.split(7), strict=True))
    assert same(whole, ablate(network, groups, iter(pairs[::-1]), most_elements=1))
    some = dict(list(groups.items())[1:3])
    assert same({name: whole[name] for name in some}, ablate(network, some, pairs))


class Largest(TorchDispatchMode):
    """The most elements of any tensor that is computed."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.elements = max(self.elements, out.numel())
        return out


def test_memory_stays_within_its_bound() -> None:
    network, (images, labels) = mixed_network("all"), data(2, size=64)
    groups = find_groups(network, images[:1])

    def largest(most: int) -> int:
        with Largest() as largest:
            ablate(network, groups, [(images, labels)], most_elements=most)
        return largest.elements

    # The stem's value has 4 channels of 64 × 64: three rows fit, and so do both images.
    assert 3 * 4 * 64 * 64 <= largest(50_000) <= 50_000
    assert largest(2**22) > 200_000


@pytest.mark.parametrize("training", [True, False])
def test_the_network_stays_as_it_was(training: bool) -> None:
    network, (images, labels) = mixed_network("torchvision, in place"), data(6)
    network.train(training)
    network.requires_grad_()
    groups = find_groups(network, images[:1])
    before, given_images = copy.deepcopy(network.state_dict()), images.clone()
    ablate(network, groups, [(images, labels)])
    assert all(module.training is training for module in network.modules())
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.state_dict().items())
    assert torch.equal(images, given_images)
    network.train()(images).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_progress_counts_images_and_classes_widen_the_table() -> None:
    network, (images, labels) = mixed_network("chain"), data(40)
    groups = find_groups(network, images[:1])
    done: list[int] = []
    batches = list(zip(images.split(35), labels.split(35), strict=True))
    counts = ablate(network, groups, batches, classes=5, progress=done.append)
    assert sum(done) == 40
    assert {tuple(c.shape) for c in counts.values()} == {(g.size, 5) for g in groups.values()}
    assert all(count[:, 3:].sum() == 0 for count in counts.values())


def test_no_groups_give_no_counts() -> None:
    network, batch = mixed_network("chain"), data(2)
    assert ablate(network, {}, [batch]) == {}


def by_hand() -> tuple[nn.Module, Tensor, Tensor]:
    """Three channels copy three pixels; class 0 reads the first, class 1 the second and third."""
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(3).view(3, 3, 1, 1))
        network[0].bias.zero_()
        network[3].weight.copy_(torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))
        network[3].bias.copy_(torch.tensor([0.0, 0.5]))
    images = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 2], [2, 0, 4], [1, 0, 2]])
    return network, images.view(6, 3, 1, 1), torch.tensor([0, 0, 1, 1, 1, 1])


def test_ranks_score_and_overlap_worked_by_hand() -> None:
    network, images, labels = by_hand()
    groups = find_groups(network, images[:1])
    # Logits (2a, b + c + ½): all are right. Without a, both of class 0 are lost; without b, none
    # ((1, 1, 2) still has 2 < 2½); without c, the last three.
    counts = ablate(network, groups, [(images, labels)])["0"]
    assert counts.tolist() == [[0, 4], [2, 4], [2, 1]]
    # Class 0: a first; b and c lose none, and c loses more in all. Class 1: c; a loses more than b.
    assert ranks(counts).tolist() == [[1, 2], [3, 3], [2, 1]]
    assert critical(network, groups, [(images, labels)])["0"].tolist() == [-1, -3, -1]
    assert overlap(counts, 1).tolist() == [[1, 0], [0, 1]]
    assert overlap(counts, 2).tolist() == [[1, 1], [1, 1]]


def test_equal_indices_rank_by_their_number() -> None:
    assert ranks(torch.tensor([[2, 0], [1, 1], [2, 0], [1, 1]])).tolist() == [
        [3, 1],
        [1, 3],
        [4, 2],
        [2, 4],
    ]
    counts = torch.tensor([[0, 5, 5], [5, 0, 5], [1, 1, 5], [5, 5, 0]])
    # The two most critical of each class: {0, 2}, {1, 2}, {3, 2}
    third = 1 / 3
    expected = [1, third, third, third, 1, third, third, third, 1]
    assert overlap(counts, 2).flatten().tolist() == pytest.approx(expected)


def test_a_threshold_keeps_the_top_k_of_some_class() -> None:
    network, (images, labels) = mixed_network("all"), data(30)
    groups = find_groups(network, images[:1])
    counts = ablate(network, groups, [(images, labels)])
    scores = critical(network, groups, [(images, labels)])
    for name, count in counts.items():
        for k in (1, 2):
            total = count.sum(1).tolist()
            top = set()
            for c in range(3):
                order = sorted(range(len(count)), key=lambda i: (count[i, c], total[i], i))
                top |= set(order[:k])
            assert set((scores[name] >= -k).nonzero()[:, 0].tolist()) == top
    assert all(kept.numel() for kept in select(scores, fraction=0.3).values())


def test_the_benchmark_compares_with_the_same_counts(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "benchmarks"))
    benchmark = importlib.import_module("critical_filters")
    network, (images, labels) = mixed_network("needed"), data(20)
    groups = find_groups(network, images[:1])
    folded, layout = benchmark.fastest(network, images)
    before = copy.deepcopy(folded.state_dict())
    batches = list(zip(images.to(memory_format=layout).split(8), labels.split(8), strict=True))
    mine = ablate(network, groups, batches)
    for name, group in groups.items():
        naive = benchmark.naive_ablate(folded, group, batches, range(1, group.size, 2))
        assert len(naive) == group.size // 2
        assert benchmark.compare(naive, mine[name].tolist()) == (3 * len(naive), 0)
        wrong = (mine[name] + 1).tolist()
        assert benchmark.compare(naive, wrong) == (3 * len(naive), 3 * len(naive))
    assert all(torch.equal(tensor, before[n]) for n, tensor in folded.state_dict().items())


def test_the_approximate_one_looks_at_a_few_images_of_each_class() -> None:
    network, (images, labels) = mixed_network("chain"), data(30)
    groups = find_groups(network, images[:1])
    chosen = [i for i in range(30) if labels[:i].tolist().count(int(labels[i])) < 2]
    pairs = list(zip(images.split(4), labels.split(4), strict=True))
    kept = torch.cat([images for images, _ in first_of_each_class(pairs, 2)])
    assert len(chosen) == 6 and torch.equal(kept, images[chosen])
    few = critical_approximate(network, groups, iter(pairs), per_class=2)
    exact = critical(network, groups, [(images[chosen], labels[chosen])])
    assert few.keys() == exact.keys() and all(torch.equal(few[n], exact[n]) for n in few)


def test_what_cannot_be_ablated_is_said() -> None:
    network, (images, labels) = mixed_network("all"), data(2)
    groups = find_groups(network, images[:1])
    for criterion in (critical, critical_approximate):
        with pytest.raises(PruningError, match="critical looks at data"):
            criterion(network, groups)
        for empty in ([], [(images[:0], labels[:0])]):
            with pytest.raises(PruningError, match="critical was given batches without an image"):
                criterion(network, groups, empty)
    for judge in (ablate, critical):  # which takes no classes=
        with pytest.raises(PruningError, match="outside the 3 classes, 0 to 2: correct them"):
            judge(network, groups, [(images, labels + 3)])
    with pytest.raises(PruningError, match="conv1 has 3 filters, its group 4: call"):
        ablate(prune(network, groups, {"conv1": torch.arange(3)}), groups, [(images, labels)])
    with (
        masked(network, groups, {"conv1": torch.arange(3)}),
        pytest.raises(PruningError, match="has a hook, which may change what it reads"),
    ):
        ablate(network, groups, [(images, labels)])
    replaced = copy.deepcopy(network)
    replaced.forward = network.forward  # type: ignore[method-assign]
    with pytest.raises(PruningError, match=r"understood whole. .* has a forward of its own"):
        ablate(replaced, groups, [(images, labels)])
    odd = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1), Odd("normed", 3), nn.Flatten())
    groups = find_groups(odd, images[:1].float(), strict=False)
    with pytest.raises(PruningError, match=r"understood whole. 2.norm, a GroupNorm .* only\.$"):
        ablate(odd, groups, [(images.float(), labels)])
    with pytest.raises(PruningError, match="k=4: choose 1 to 3"):
        overlap(torch.zeros(3, 2, dtype=torch.long), 4)


class Again(nn.Module):
    """Values that are read again after the ReLU or the sum that reads them."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(4, 3, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        z = self.b(torch.relu(self.a(x)))
        w = torch.relu(z) + z
        v = w + z
        u = torch.add(v, w, alpha=3) + v
        return self.c(torch.relu(u)).mean((2, 3))


def test_values_that_are_read_again():
    torch.manual_seed(0)
    network = Again().double().eval()
    images = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    groups = find_groups(network, images)
    with torch.inference_mode():
        differences = Differences(network, groups)
        values = differences.run(images)
        present = differences.present(values)
        for image in range(2):
            one = {node: value[image : image + 1] for node, value in values.items()}
            for sweep in differences.sweeps(one, [p[image] for p in present], 2**20):
                logits = differences.logits(one, sweep)
                for rows in sweep:
                    group = differences.groups[rows.number]
                    for index, found in zip(
                        rows.indices.tolist(), logits[rows.start : rows.stop], strict=True
                    ):
                        keep = torch.tensor([i for i in range(group.size) if i != index])
                        with masked(network, groups, {group.name: keep}):
                            assert (found - network(images)[image]).abs().max() < 1e-9


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        y = torch.relu(self.conv(x)).mean((2, 3))
        return self.fc(y), y


def test_ablation_wants_one_tensor():
    network, images = Pair(), torch.randn(2, 3, 4, 4)
    with pytest.raises(PruningError, match="more than one tensor"):
        ablate(network, find_groups(network, images), [(images, torch.tensor([0, 1]))])
