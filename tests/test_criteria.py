"""Scores against slow, obvious loops and cases worked by hand."""

from __future__ import annotations

import pytest
import torch
from networks import grouped, randomise
from torch import nn

from course_lib.pruning import (
    CRITERIA,
    PruningError,
    bn_scale,
    find_groups,
    l1,
    l2,
    linf,
    prune,
    random,
)
from course_lib.resnet import ResNet, ResNetConfig, resnet_config


def small_resnet(projection: str = "all", norm: bool = True) -> ResNet:
    config = resnet_config(
        18, 10, base_width=3, projection=projection, projection_norm=norm, small_images=True
    )
    network = ResNet(config)
    randomise(network, seed=1)
    return network


IMAGE = torch.zeros(1, 3, 16, 16)
SLOW_NORMS = {
    "l1": lambda weights: sum(abs(w) for w in weights),
    "l2": lambda weights: sum(w * w for w in weights) ** 0.5,
    "linf": lambda weights: max(abs(w) for w in weights),
}


@pytest.mark.parametrize("name", list(SLOW_NORMS))
@pytest.mark.parametrize("projection", ["all", "needed", "grouped"])
def test_norms_against_a_loop_over_every_weight(name: str, projection: str) -> None:
    network = randomise(grouped(), seed=1) if projection == "grouped" else small_resnet(projection)
    groups = find_groups(network, IMAGE)
    scores = CRITERIA[name](network, groups)
    assert list(scores) == list(groups)
    for group in groups.values():
        for index in range(group.size):
            weights = []
            for maker in group.makers:
                each = slice(index * group.channels, (index + 1) * group.channels)
                weights += network.get_submodule(maker).weight[each].flatten().tolist()
            assert scores[group.name][index].item() == pytest.approx(
                SLOW_NORMS[name](weights), rel=1e-5
            )


def coupled() -> nn.Module:
    """conv1 → layer1.0 with a projection; the block's output has two producers and two norms."""
    config = ResNetConfig.from_dict(
        {
            "stem": 1,
            "stages": [[{"widths": [1, 2], "stride": 1, "projection": "norm"}]],
            "classes": 2,
            "channels": 1,
            "small_images": True,
        }
    )
    network = ResNet(config)
    block = network.layer1[0]
    block.conv2.weight.data = torch.zeros(2, 1, 3, 3)
    block.conv2.weight.data[0, 0, 0, :2] = torch.tensor([3.0, -4.0])
    block.conv2.weight.data[1, 0, 1, 1] = -6.0
    block.shortcut[0].weight.data = torch.tensor([12.0, 2.0]).view(2, 1, 1, 1)
    block.bn2.weight.data = torch.tensor([0.5, -2.0])
    block.shortcut[1].weight.data = torch.tensor([-1.5, 0.25])
    return network


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (l1, [3 + 4 + 12, 6 + 2]),
        (l2, [(9 + 16 + 144) ** 0.5, 40**0.5]),  # 13 and 6.32
        (linf, [12, 6]),
        (bn_scale, [0.5 + 1.5, 2 + 0.25]),
    ],
    ids=["l1", "l2", "linf", "bn_scale"],
)
def test_coupled_filters_worked_by_hand(criterion, expected: list[float]) -> None:
    network = coupled()
    scores = criterion(network, find_groups(network, torch.zeros(1, 1, 8, 8)))
    assert scores["layer1.0.conv2"].tolist() == pytest.approx(expected)


def test_bn_scale_sums_over_a_whole_stage() -> None:
    network = small_resnet("needed")
    groups = find_groups(network, IMAGE)
    scores = bn_scale(network, groups)
    block0, block1 = network.layer1
    for index in range(3):
        gammas = [bn.weight[index].item() for bn in (network.bn1, block0.bn2, block1.bn2)]
        expected = sum(abs(gamma) for gamma in gammas)
        assert scores["conv1"][index].item() == pytest.approx(expected)


def test_bn_scale_sums_over_the_channels_of_an_index() -> None:
    network = grouped()
    network[6].weight.data = torch.tensor([1.0, -2, 3, 4, -5, 6])
    groups = {"3": find_groups(network, torch.zeros(1, 3, 8, 8))["3"]}
    assert bn_scale(network, groups)["3"].tolist() == [3, 7, 11]


def test_bn_scale_takes_the_norms_that_are_there() -> None:
    network = small_resnet(norm=False)
    scores = bn_scale(network, find_groups(network, IMAGE))
    assert torch.equal(scores["layer2.0.conv2"], network.layer2[0].bn2.weight.abs())


@pytest.mark.parametrize("norm", [[], [nn.BatchNorm2d(4, affine=False)]])
def test_bn_scale_refuses_a_group_without_scale_by_name(norm: list[nn.Module]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), *norm, nn.Conv2d(4, 2, 1))
    with pytest.raises(PruningError, match="0 has no batch norm with a scale"):
        bn_scale(network, find_groups(network, IMAGE))


def test_random_is_reproducible_by_its_generator_only() -> None:
    network = small_resnet()
    groups = find_groups(network, IMAGE)

    def draw(seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat(list(random(network, groups, generator=generator).values())).tolist()

    state = torch.random.get_rng_state()
    assert draw(0) == draw(0) != draw(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(draw(0)) == sum(group.size for group in groups.values())
    assert all(0 <= score < 1 for score in draw(0))
    assert len(set(draw(0))) > 0.99 * len(draw(0))


@pytest.mark.parametrize("name", list(CRITERIA))
def test_every_criterion_gives_a_score_per_index_apart_from_the_network(name: str) -> None:
    network = small_resnet()
    groups = find_groups(network, IMAGE)
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([3, 7]))]
    scores = CRITERIA[name](network, groups, batches, generator=generator)
    assert {name: (s.shape, s.requires_grad) for name, s in scores.items()} == {
        name: ((group.size,), False) for name, group in groups.items()
    }
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    for score in scores.values():
        score.zero_()
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    assert CRITERIA[name].__doc__


@pytest.mark.parametrize("name", list(CRITERIA))
def test_groups_from_before_a_pruning_are_refused(name: str) -> None:
    """By every criterion: the commonest mistake of a loop written by hand."""
    network = small_resnet().eval()
    groups = find_groups(network, IMAGE)
    narrow = prune(network, groups, {"conv1": torch.arange(2)})
    with pytest.raises(PruningError, match="conv1 has 2 filters, its group 3: call find_groups"):
        CRITERIA[name](narrow, groups, [(torch.ones(2, 3, 16, 16), torch.tensor([0, 1]))])
