"""Residual networks against torchvision's, their widths read back, and their files."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import SmallStock, plans, randomise, resnet_configs
from torch import Tensor, nn

from course_lib.errors import CourseError
from course_lib.pruning import find_groups, prune
from course_lib.resnet import (
    BlockConfig,
    ResNet,
    ResNetConfig,
    add_projections,
    config_of,
    from_torchvision,
    load_network,
    resnet_config,
    saved_form,
    to_torchvision,
)

STOCK = torchvision.models.resnet


def images(size: int, channels: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randn(4, channels, size, size, generator=generator, dtype=dtype)


def relative_error(mine: Tensor, theirs: Tensor) -> float:
    assert mine.shape == theirs.shape
    return ((mine - theirs).abs().max() / theirs.abs().max()).item()


@pytest.fixture(scope="module", params=[18, 34, 50])
def stock(request: pytest.FixtureRequest) -> torchvision.models.ResNet:
    network = torchvision.models.get_model(f"resnet{request.param}", num_classes=10)
    return randomise(network, seed=request.param)


@torch.no_grad()
def test_parity_with_torchvision_in_evaluation(stock: torchvision.models.ResNet) -> None:
    ours = from_torchvision(stock.eval())
    expected = stock(images(64))
    assert not ours.training
    assert relative_error(ours(images(64)), expected) <= 1e-5
    back = to_torchvision(ours)
    assert not back.training
    assert relative_error(back(images(64)), expected) <= 1e-5
    state = stock.state_dict()
    assert list(back.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in back.state_dict().items())


@torch.no_grad()
def test_parity_with_torchvision_in_training(stock: torchvision.models.ResNet) -> None:
    theirs = copy.deepcopy(stock).double().train()
    ours = from_torchvision(theirs)
    assert ours.training and ours.conv1.weight.dtype == torch.float64
    double = images(64, dtype=torch.float64)
    assert relative_error(ours(double), theirs(double)) <= 1e-9
    theirs.eval(), ours.eval()  # now with the running statistics that both have gathered
    assert relative_error(ours(double), theirs(double)) <= 1e-9


def test_our_description_of_torchvisions_networks(stock: torchvision.models.ResNet) -> None:
    depth = {(2, 2, 2, 2, 2): 18, (3, 4, 6, 3, 2): 34, (3, 4, 6, 3, 3): 50}
    config = config_of(stock)
    convolutions = len(config.stages[0][0].widths)
    found = depth[(*map(len, config.stages), convolutions)]
    assert config == resnet_config(found, 10, projection="needed")


def small(projection: str = "needed", depth: int = 18, seed: int = 0, **options) -> ResNet:
    config = resnet_config(depth, 5, base_width=4, projection=projection, **options)
    network = ResNet(config).double()
    randomise(network, seed)
    return network


def assert_same_function(mine: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """In both modes, and the gradients of the weights that both have, and running statistics."""
    assert relative_error(mine.eval()(x), theirs.eval()(x)) <= 1e-9
    target = torch.arange(len(x)) % theirs.fc.out_features
    for network in (mine.train(), theirs.train()):
        network.zero_grad()
        nn.functional.cross_entropy(network(x), target).backward()
    gradients = {name: p.grad for name, p in mine.named_parameters()}
    for name, parameter in theirs.named_parameters():
        scale = max(1.0, parameter.grad.abs().max().item())
        assert (gradients[name] - parameter.grad).abs().max() <= 1e-9 * scale, name
    state = mine.state_dict()
    for name, value in theirs.state_dict().items():
        assert torch.allclose(state[name], value, rtol=1e-9, atol=1e-9), name


@pytest.mark.parametrize("depth", [18, 50])
def test_add_projections_keeps_the_function(depth: int) -> None:
    network = small(depth=depth)
    projected = add_projections(network)
    kinds = [block.projection for stage in config_of(projected).stages for block in stage]
    # Bottlenecks change the width in the first block too; the other projections are new.
    first = ["norm" if depth == 50 else "bare"]
    counts = (2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)
    expected = first + ["bare"] * (counts[0] - 1)
    for count in counts[1:]:
        expected += ["norm"] + ["bare"] * (count - 1)
    assert kinds == expected
    assert "none" in {block.projection for stage in config_of(network).stages for block in stage}
    assert_same_function(projected, network, images(32, dtype=torch.float64))


@settings(max_examples=settings.default.max_examples // 5)
@given(st.data())
def test_add_projections_keeps_the_function_of_pruned_networks(data: st.DataObject) -> None:
    network = small(seed=data.draw(st.integers(0, 99)))
    x = images(16, dtype=torch.float64)
    groups = find_groups(network, x)
    narrow = prune(network, groups, data.draw(plans(groups)))
    assert_same_function(add_projections(narrow), narrow, x)


def test_add_projections_frees_every_blocks_width() -> None:
    network = small()
    x = images(16, dtype=torch.float64)
    assert len(find_groups(network, x)) == 12
    assert len(find_groups(add_projections(network), x)) == 17


def test_add_projections_returns_another_network() -> None:
    network = small().eval()
    before = copy.deepcopy(network.state_dict())
    projected = add_projections(network)
    with torch.no_grad():
        for parameter in projected.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in projected.modules())


@given(resnet_configs())
def test_config_of_is_the_inverse(config: ResNetConfig) -> None:
    assert config_of(ResNet(config)) == config
    assert ResNetConfig.from_dict(config.to_dict()) == config
    assert ResNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("depth", [18, 34, 50])
@pytest.mark.parametrize("small_images", [True, False])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("projection", ["all", "needed"])
def test_config_of_standard_networks(
    depth: int, small_images: bool, norm: bool, projection: str
) -> None:
    config = resnet_config(
        *(depth, 7),
        base_width=2,
        channels=1,
        small_images=small_images,
        projection=projection,
        projection_norm=norm,
    )
    assert config_of(ResNet(config)) == config


@pytest.mark.parametrize(("block", "last"), [(STOCK.BasicBlock, 5), (STOCK.Bottleneck, 20)])
def test_config_of_torchvisions_blocks_with_other_widths(block: type, last: int) -> None:
    network = randomise(SmallStock(block, [1, 2, 1, 1], [2, 3, 4, 5], classes=3), 0).double().eval()
    ours = from_torchvision(network)
    assert config_of(ours) == config_of(network)
    assert config_of(ours).stages[3][0].widths[-1] == last
    x = images(32, dtype=torch.float64)
    assert relative_error(ours(x), network(x)) <= 1e-9


def test_config_of_a_stride_of_three() -> None:
    config = ResNetConfig(2, ((BlockConfig((2, 2), 3, "bare"),),), 2)
    assert config_of(ResNet(config)) == config


def test_config_of_draws_no_random_numbers() -> None:
    network = small()
    before = torch.random.get_rng_state()
    config_of(network)
    saved_form(network)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_shapes_and_strides() -> None:
    """ImageNet's stem divides by 4 and each later stage by 2; the small stem doesn't divide."""
    for small_images, sizes in ((False, (16, 8, 4, 2)), (True, (64, 32, 16, 8))):
        network = ResNet(resnet_config(18, 5, base_width=2, small_images=small_images))
        x = network.maxpool(network.bn1(network.conv1(images(64))))
        seen = []
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = stage(x)
            seen.append(x.shape[-1])
        assert tuple(seen) == sizes
        assert network(images(64)).shape == (4, 5)


def changed(change: Callable[[nn.Module], object]) -> nn.Module:
    with torch.device("meta"):
        network = torchvision.models.resnet18(num_classes=5)
        change(network)
    return network


def widen_pooling(network: nn.Module) -> None:
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)  # but the max pooling stays


MAX_POOL = nn.AdaptiveMaxPool2d(1)
FOREIGN: list[tuple[str, Callable[[], nn.Module]]] = [
    ("ResNet with a linear fc", lambda: nn.Linear(2, 2)),
    ("ResNet with a linear fc", lambda: changed(lambda n: setattr(n, "fc", nn.Identity()))),
    ("layer1.0.conv2 is .*groups=32", lambda: torchvision.models.resnext50_32x4d()),
    ("layer2.0.conv1 is .*dilation", lambda: changed(dilate)),
    ("maxpool is MaxPool2d.*nothing", lambda: changed(widen_pooling)),
    ("maxpool is missing", lambda: changed(lambda n: setattr(n, "maxpool", nn.Identity()))),
    ("bn1 is GroupNorm", lambda: changed(lambda n: setattr(n, "bn1", nn.GroupNorm(4, 64)))),
    ("block that is Identity", lambda: changed(lambda n: n.layer1.append(nn.Identity()))),
    ("bn1 is missing", lambda: changed(lambda n: setattr(n, "bn1", nn.Identity()))),
    ("avgpool is AdaptiveMax", lambda: changed(lambda n: setattr(n, "avgpool", MAX_POOL))),
    ("avgpool is missing", lambda: changed(lambda n: setattr(n, "avgpool", nn.Identity()))),
    ("layer3.1.relu is SiLU", lambda: changed(lambda n: setattr(n.layer3[1], "relu", nn.SiLU()))),
    ("relu is Identity", lambda: changed(lambda n: setattr(n, "relu", nn.Identity()))),
    ("bn1 is .*eps=0.001", lambda: changed(lambda n: setattr(n, "bn1", nn.BatchNorm2d(64, 1e-3)))),
    ("conv1 is ", lambda: changed(lambda n: setattr(n, "conv1", nn.Conv2d(3, 64, 7, 2, 3)))),
    ("fc is .*bias=False", lambda: changed(lambda n: setattr(n, "fc", nn.Linear(512, 5, False)))),
]


def dilate(network: nn.Module) -> None:
    network.layer2[0].conv1 = nn.Conv2d(64, 128, 3, 2, 2, dilation=2, bias=False)


@pytest.mark.parametrize(("says", "make"), FOREIGN)
def test_config_of_refuses_what_it_cannot_describe(
    says: str, make: Callable[[], nn.Module]
) -> None:
    with pytest.raises(CourseError, match=says):
        config_of(make())


@pytest.mark.parametrize(
    "options",
    [
        {"projection": "all"},
        {"base_width": 32},
        {"small_images": True},
        {"channels": 1},
        {"projection_norm": False},
    ],
)
def test_to_torchvision_refuses_what_torchvision_does_not_have(options: dict) -> None:
    with torch.device("meta"):
        network = ResNet(resnet_config(18, 5, **{"projection": "needed", **options}))
    with pytest.raises(CourseError, match="torchvision has no ResNet"):
        to_torchvision(network)


def test_to_torchvision_refuses_another_number_of_stages() -> None:
    stage = (BlockConfig((64, 64)),)
    with pytest.raises(CourseError, match="torchvision has no ResNet"):
        to_torchvision(ResNet(ResNetConfig(64, (stage, stage), 5)))


def test_add_projections_refuses_torchvisions_network() -> None:
    with pytest.raises(CourseError, match="from_torchvision first"):
        add_projections(changed(lambda n: None))


@pytest.mark.parametrize(
    ("options", "says"),
    [({"depth": 101}, "no ResNet-101"), ({"projection": "some"}, "projection='some'")],
)
def test_unknown_networks_are_refused(options: dict, says: str) -> None:
    with pytest.raises(CourseError, match=says):
        resnet_config(**options)


@pytest.mark.parametrize("block", [BlockConfig((2, 4)), BlockConfig((2, 2), stride=2)])
def test_an_identity_cannot_change_the_shape(block: BlockConfig) -> None:
    with pytest.raises(CourseError, match='projection="norm"'):
        ResNet(ResNetConfig(2, ((block,),), 2))


@pytest.mark.parametrize("projection", ["all", "needed"])
def test_a_network_comes_back_from_its_file(projection: str, tmp_path: Path) -> None:
    network = small(projection).float()
    groups = find_groups(network, images(32))
    keep = {name: torch.arange(0, group.size, 2) for name, group in groups.items()}
    narrow = prune(network, groups, keep).train()
    path = tmp_path / "network.pt"
    torch.save(saved_form(narrow, accuracy=0.5), path)
    loaded = load_network(path)
    assert torch.load(path, weights_only=True)["accuracy"] == 0.5
    assert not loaded.training and config_of(loaded) == config_of(narrow)
    assert torch.equal(loaded(images(32)), narrow.eval()(images(32)))


def test_saved_form_does_not_change_with_the_network() -> None:
    network = small()
    state = saved_form(network)["state_dict"]
    before = state["conv1.weight"].clone()
    with torch.no_grad():
        network.conv1.weight.zero_()
    assert torch.equal(state["conv1.weight"], before) and before.any()
    assert not any(value.requires_grad for value in state.values())


def test_load_network_says_which_file_is_wrong(tmp_path: Path) -> None:
    good, path = saved_form(small()), tmp_path / "network.pt"
    with pytest.raises(CourseError, match=r"network\.pt isn't there"):
        load_network(path)
    other = saved_form(small("all"))["state_dict"]
    for wrong in ({"state_dict": good["state_dict"]}, [1], {**good, "state_dict": other}):
        torch.save(wrong, path)
        with pytest.raises(CourseError, match=r"network\.pt isn't there or isn't a network"):
            load_network(path)
    path.write_bytes(b"PK not a network")
    with pytest.raises(CourseError, match=r"network\.pt isn't there or isn't a network"):
        load_network(path)


def test_a_look_alike_is_not_described():
    class LookAlike(nn.Module):
        def __init__(self):
            super().__init__()
            for name, child in torchvision.models.resnet18().named_children():
                self.add_module(name, child)

        def forward(self, x):
            return self.fc(
                self.avgpool(
                    self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
                ).flatten(1)
            )

    with pytest.raises(CourseError, match="course_lib's or torchvision's"):
        config_of(LookAlike())
