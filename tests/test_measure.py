"""Costs against counts by hand, files on disk and PyTorch's own arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from networks import randomise
from torch import Tensor, nn

from course_lib.measure import (
    activation_bytes,
    count_bytes,
    count_macs,
    count_parameters,
    fold,
    images_per_second,
    index_costs,
    layer_macs,
    layer_milliseconds,
    seconds_in_turn,
    speed_range,
)
from course_lib.pruning import Group, find_groups, l1, prune, select
from course_lib.resnet import ResNet, add_projections, config_of, resnet_config


def tiny() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(4 * 5 * 5, 7, bias=False)),
    )


def test_parameters_by_hand() -> None:
    assert count_parameters(tiny()) == (4 * 3 * 3 * 3 + 4) + (4 + 4) + 7 * 100


def test_resnet18_has_the_published_number_of_parameters() -> None:
    """11,689,512 is what torchvision's documentation gives for its ResNet-18."""
    with torch.device("meta"):
        stock = ResNet(resnet_config(18, projection="needed"))
        everywhere = ResNet(resnet_config(18, projection="all"))
    assert count_parameters(stock) == 11_689_512
    # Five more projections: stem to stage 1, and the second block of each stage, with two per norm.
    more = sum(width * width + 2 * width for width in (64, 64, 128, 256, 512))
    assert count_parameters(everywhere) == 11_689_512 + more
    assert more / 11_689_512 == pytest.approx(0.03, abs=0.005)


@pytest.mark.parametrize("image", [(3, 10, 10), (3, 9, 9)])
def test_macs_by_hand(image: tuple[int, int, int]) -> None:
    """Each of 4 · 5 · 5 values sums 3 · 3 · 3 products, each of 7 logits 100."""
    assert count_macs(tiny(), image) == 4 * 5 * 5 * 27 + 7 * 100


def test_resnet18_at_224_pixels_has_the_known_macs() -> None:
    """torchvision gives 1.814 GFLOPS for its ResNet-18, meaning multiply-accumulates."""
    with torch.device("meta"):
        network = torchvision.models.resnet18()
    assert count_macs(network, (3, 224, 224)) == pytest.approx(1.814e9, rel=0.01)


def test_counting_macs_leaves_the_network_alone_in_any_precision() -> None:
    network = tiny().double().train()
    assert count_macs(network, (3, 10, 10)) == count_macs(tiny().bfloat16(), (3, 10, 10))
    assert network.training and network[0].weight.device.type == "cpu"
    assert network[0].weight.dtype == torch.float64
    assert network[1].num_batches_tracked == 0


def test_macs_do_not_depend_on_the_type_of_new_tensors() -> None:
    expected = count_macs(tiny(), (3, 10, 10))
    torch.set_default_dtype(torch.float64)
    try:
        assert count_macs(tiny(), (3, 10, 10)) == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_computed_weights_cost_no_macs() -> None:
    network = tiny()
    nn.utils.parametrizations.weight_norm(network[0])
    assert count_macs(network, (3, 10, 10)) == count_macs(tiny(), (3, 10, 10))


def test_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    network = ResNet(resnet_config(18, 10, base_width=4))
    with open(tmp_path / "network.pt", "wb") as file:
        torch.save(network.state_dict(), file)
    assert count_bytes(network) == (tmp_path / "network.pt").stat().st_size
    torch.save(network.state_dict(), tmp_path / "named.pt")  # a path's name goes into the file
    assert count_bytes(network) == pytest.approx((tmp_path / "named.pt").stat().st_size, rel=0.05)
    assert count_bytes(network) > 4 * count_parameters(network)


def test_a_pruned_network_costs_what_a_new_one_of_its_widths_does() -> None:
    """A slice that still held on to the wide tensor would be saved with all of it."""
    network = ResNet(resnet_config(18, 10, base_width=8))
    groups = find_groups(network, torch.zeros(1, 3, 32, 32))
    narrow = prune(network, groups, select(l1(network, groups), fraction=0.5))
    new = ResNet(config_of(narrow))
    for count in (count_parameters, count_bytes, lambda n: count_macs(n, (3, 32, 32))):
        assert count(narrow) == count(new) < 0.5 * count(network)


def ours(projection_norm: bool) -> nn.Module:
    return ResNet(resnet_config(18, 5, base_width=4, projection_norm=projection_norm))


FOLDABLE = {
    "ours": lambda: ours(True),
    "bare projections": lambda: ours(False),
    "added projections": lambda: add_projections(
        ResNet(resnet_config(18, 5, base_width=4, projection="needed"))
    ),
    "bottlenecks": lambda: ResNet(resnet_config(50, 5, base_width=4)),
    "torchvision's": lambda: torchvision.models.resnet18(num_classes=5),
}


@pytest.mark.parametrize("name", list(FOLDABLE))
@torch.no_grad()
def test_folding_keeps_the_function(name: str) -> None:
    network = randomise(FOLDABLE[name](), seed=3).train()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    folded = fold(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert network.training and not folded.training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    expected = network.eval()(images)
    error = (folded(images) - expected).abs().max() / expected.abs().max()
    assert error < 1e-5


class Shared(nn.Module):
    """One convolution for two values, each with a batch norm of its own or, `past`, the second by
    its weights alone.
    """

    def __init__(self, past: bool) -> None:
        super().__init__()
        self.past = past
        self.conv, self.fc = nn.Conv2d(3, 3, 3), nn.Linear(3, 2)
        self.norm, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        one, weight = self.norm(self.conv(x)), self.conv.weight
        other = torch.conv2d(x, weight) if self.past else self.other(self.conv(x * x))
        return self.fc((one + other).mean((2, 3)))


@pytest.mark.parametrize("past", [False, True])
def test_a_convolution_that_is_used_twice_is_not_folded(past: bool) -> None:
    network, images = randomise(Shared(past), 0).eval(), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fold(network)(images), network(images))


class Viewed(nn.Module):
    """Flattens by `view`, which fails on what is channels-last, and calls a layer by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(input=self.norm(self.conv(x)).view(x.size(0), -1))


def test_a_view_that_flattens_is_folded_and_timed() -> None:
    network, images = randomise(Viewed(), 0).eval(), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fold(network)(images), network(images))
    times = layer_milliseconds(network, images, passes=1, seconds=0.001)
    assert times.keys() == {"conv", "fc"}


def test_folding_in_three_dimensions() -> None:
    network = randomise(nn.Sequential(nn.Conv3d(2, 3, 1), nn.BatchNorm3d(3)), 0).eval()
    images = torch.randn(2, 2, 3, 3, 3)
    torch.testing.assert_close(fold(network)(images), network(images))
    assert not any(isinstance(layer, nn.BatchNorm3d) for layer in fold(network).modules())


def test_a_heavier_network_is_slower() -> None:
    light, heavy = nn.Conv2d(3, 2, 1), nn.Sequential(nn.Conv2d(3, 64, 7), nn.Conv2d(64, 64, 7))
    networks = {"light": light, "heavy": heavy}
    image_shape = (3, 32, 32)
    assert count_macs(heavy, image_shape) > 50 * count_macs(light, image_shape)
    readings = images_per_second(networks, torch.zeros(4, *image_shape), passes=3, seconds=0.01)
    assert {name: len(values) for name, values in readings.items()} == {"light": 3, "heavy": 3}
    assert min(readings["light"]) > 2 * max(readings["heavy"]) > 0


def test_speeds_are_compared_within_each_pass() -> None:
    """The second pass ran on a machine twice as slow, which the ratios don't see."""
    readings = {"full": [10.0, 5.0, 10.0], "pruned": [30.0, 15.0, 20.0]}
    assert speed_range(readings, "pruned", "full") == (2.0, 3.0)
    assert speed_range(readings, "full", "full") == (1.0, 1.0)
    with pytest.raises(ValueError):
        speed_range({"a": [1.0], "b": [1.0, 2.0]}, "a", "b")


COUNTED = {
    "ours": (lambda: ours(True), (3, 48, 48)),
    "stock": (lambda: torchvision.models.resnet18(num_classes=5), (3, 64, 64)),
    "bottlenecks": (lambda: ResNet(resnet_config(50, 5, base_width=4, channels=1)), (1, 32, 32)),
    "chain": (
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4), nn.Tanh()),
            nn.Linear(4, 2),
        ),
        (3, 8, 8),
    ),
}


@pytest.mark.parametrize("name", list(COUNTED))
def test_an_index_costs_the_macs_that_removing_it_saves(name: str) -> None:
    build, image = COUNTED[name]
    network = build()
    groups = find_groups(network, torch.zeros(1, *image))
    whole = count_macs(network, image)
    layers = layer_macs(network, image)
    assert sum(layers.values()) == whole
    costs = index_costs(groups, layers)
    assert list(costs) == list(groups)
    for group in list(groups.values())[:: len(groups) // 10 or 1]:  # ten suffice, of many
        narrow = prune(network, groups, {group.name: torch.arange(1, group.size)})
        assert costs[group.name] == whole - count_macs(narrow, image)


def test_the_cost_of_an_index_by_hand() -> None:
    """Layers of 12 and 20 on four indices, one of 8 that only one of two groups is read by."""
    groups = {
        "a": Group("a", 4, ("a", "b"), (), (("c", 1),)),
        "c": Group("c", 2, ("c",), (), (("d", 9), ("e", 1))),
    }
    layers = {"a": 12.0, "b": 20.0, "c": 8.0, "d": 6.0, "e": 2.0}
    assert index_costs(groups, layers) == {"a": (12 + 20 + 8) / 4, "c": (8 + 6 + 2) / 2}


def test_milliseconds_are_those_of_each_layer() -> None:
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 64, 7), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2)),
    ).train()
    images = torch.zeros(2, 3, 32, 32)
    times = layer_milliseconds(network, images, passes=3, seconds=0.005)
    assert list(times) == ["0", "3", "7"] and network.training
    assert times["3"] > 3 * max(times["0"], times["7"]) > 0
    costs = index_costs(find_groups(network, images), times)
    assert costs["0"] == (times["0"] + times["3"]) / 8
    scores = l1(network, find_groups(network, images))
    assert select(scores, fraction=0.2, scope="network", cost=costs)


def test_activations_alive_by_hand() -> None:
    """Two convolutions and a ReLU: the ReLU holds what it reads and what it writes, 4 channels."""
    chain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    images = torch.zeros(5, 3, 6, 6)
    assert activation_bytes(chain, images) == 2 * 5 * 4 * 6 * 6 * 4
    assert activation_bytes(chain, images[:1]) == 2 * 4 * 6 * 6 * 4
    longer = nn.Sequential(*chain, nn.Conv2d(2, 4, 1), nn.ReLU())  # what is done with is let go
    assert activation_bytes(longer, images) == activation_bytes(chain, images)


def test_a_longer_call_takes_longer_and_is_warmed_up() -> None:
    calls = []

    def short() -> None:
        calls.append("short")

    def long() -> None:
        calls.append("long")
        sum(range(20_000))

    readings = seconds_in_turn({"short": short, "long": long}, passes=3, seconds=0.001)
    assert {name: len(values) for name, values in readings.items()} == {"short": 3, "long": 3}
    assert min(readings["long"]) > 2 * max(readings["short"]) > 0
    assert calls[:2] == ["short", "short"]


def test_activation_bytes_are_those_of_the_folded_network_which_is_left_as_it_was():
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    normed = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    images = torch.randn(2, 3, 8, 8)
    before = {k: v.clone() for k, v in normed.state_dict().items()}
    assert activation_bytes(normed, images) == activation_bytes(plain, images)
    assert all(torch.equal(v, before[k]) for k, v in normed.state_dict().items())
