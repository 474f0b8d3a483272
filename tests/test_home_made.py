"""Blocks as people write them: what a forward says in another way is still understood whole, and
removed is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import randomise
from torch import Tensor, nn
from torch.nn.utils.prune import l1_unstructured
from torchvision.models import resnet18
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.segmentation import fcn_resnet50
from torchvision.ops import FrozenBatchNorm2d

from course_lib.measure import fold
from course_lib.pruning import PruningError, critical, find_groups, l1, masked, prune, select

Body = Callable[[Any, Tensor], Tensor]


class Block(nn.Module):
    """x + what `body` makes of conv(x); it may use the other layers, which have names of blocks."""

    def __init__(self, width: int, body: Body) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.down, self.up = nn.Linear(width, 3), nn.Linear(3, width)
        self.frozen, self.prelu = FrozenBatchNorm2d(width), nn.PReLU()
        self.pool, self.alpha = nn.AdaptiveAvgPool2d(1), nn.Parameter(torch.full((1,), 0.5))
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(self, self.norm(self.conv(x))))

    def share(self, y: Tensor) -> Tensor:
        return torch.sigmoid(self.up(F.relu(self.down(y))))


def excited(block: Block, x: Tensor) -> Tensor:
    """Squeeze-and-excitation as most code on the web has it."""
    b, c, _, _ = x.size()
    y = block.pool(x).view(b, c)
    return x * block.share(y).view(b, c, 1, 1).expand_as(x)


def excited_by_shape(block: Block, x: Tensor) -> Tensor:
    y = F.avg_pool2d(x, (x.size(2), x.shape[3])).squeeze(-1).squeeze(-1)
    return x * block.share(y).reshape(x.shape[0], x.shape[1], 1, 1)


def unsqueezed(block: Block, x: Tensor) -> Tensor:
    return x * block.share(x.sum((2, 3))).unsqueeze(-1).unsqueeze(-1)


def indexed(block: Block, x: Tensor) -> Tensor:
    return x * block.share(x.mean((2, 3)))[:, :, None, None]


def resized(block: Block, x: Tensor) -> Tensor:
    half = F.max_pool2d(x, 2)
    return F.interpolate(half, size=x.shape[-2:]) + F.interpolate(half, (x.size(2), x.size(3)))


BODIES: dict[str, Body] = {
    "squeeze-and-excitation": excited,
    "its shape read otherwise": excited_by_shape,
    "unsqueezed": unsqueezed,
    "indexed": indexed,
    "resized": resized,
    "a number of its own": lambda block, x: block.alpha * x,
    "a frozen norm": lambda block, x: block.frozen(x),
    "one slope": lambda block, x: block.prelu(x),
    "padded": lambda block, x: F.pad(x, (1, 1, 1, 1))[:, :, 1:-1, 1:-1],
    "clamped": lambda block, x: x.clamp(-1, 6).abs() - torch.exp(-x),
    "subsampled": lambda block, x: F.interpolate(x[:, :, ::2, ::2], scale_factor=2),
}


class Net(nn.Module):
    """A small residual network of such blocks, with the head of many networks for CIFAR-10."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 6, 3, padding=1), Block(6, body)
        self.wider, self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1), Block(8, body)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.wider(self.first(self.stem(x))))
        x = F.avg_pool2d(x, x.size()[3])
        return self.fc(x.view(x.size(0), -1))


def images(size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(4, 3, size, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_removed_is_masked(body: Body) -> None:
    network = randomise(Net(body).double().eval(), 1)
    groups = find_groups(network, images())
    # Each block's filters go with those of what it is added to.
    assert groups["stem"].producers == ("stem", "first.conv", *groups["stem"].producers[2:])
    assert groups["wider"].producers[:2] == ("wider", "second.conv")
    assert len(groups) == (4 if "second.down" in groups else 2)
    keep = select(l1(network, groups), fraction=0.5)
    narrow = prune(network, groups, keep)
    for mode in (False, True):
        with torch.no_grad(), masked(network.train(mode), groups, keep) as wide:
            torch.testing.assert_close(narrow.train(mode)(images()), wide(images()))
    torch.testing.assert_close(fold(narrow.eval())(images()), narrow(images()))
    assert find_groups(narrow, images()).keys() == groups.keys()


@pytest.mark.parametrize("name", ["resized", "a number of its own"])
def test_what_ablation_cannot_follow_is_said(name: str) -> None:
    network = Net(BODIES[name]).double().eval()
    with pytest.raises(PruningError, match="that reads shapes or tensors"):
        critical(network, find_groups(network, images()), [(images(), torch.zeros(4).long())])


def test_an_excitation_of_other_channels_ties_them() -> None:
    """The channels that a view asks for are another value's, which must then go with them."""

    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            a, b = F.adaptive_avg_pool2d(self.a(x), 1), self.b(x)
            return self.fc(a.view(b.size(0), b.size(1)))

    groups = find_groups(Other(), torch.zeros(2, 3, 4, 4))
    assert [group.producers for group in groups.values()] == [("a", "b")]


@pytest.mark.parametrize(("out", "left"), [("fpn", 0.31), ("fcn", 0.27)])
def test_networks_around_a_resnet(out: str, left: float) -> None:
    """torchvision's, with frozen norms, or with a size that is read off the input."""
    if out == "fpn":
        network = resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)
    else:
        network = fcn_resnet50(weights=None, weights_backbone=None)
    network = randomise(network, 1).double().eval()
    groups = find_groups(network, images(64))
    keep = select(l1(network, groups), fraction=0.5)
    narrow = prune(network, groups, keep)
    with torch.no_grad(), masked(network, groups, keep) as wide:
        torch.testing.assert_close(dict(narrow(images(64))), dict(wide(images(64))))
    sizes = [sum(tensor.numel() for tensor in n.state_dict().values()) for n in (narrow, network)]
    assert sizes[0] / sizes[1] < left


def test_a_copy_keeps_its_mode() -> None:
    network = create_feature_extractor(resnet18(), ["layer4"]).eval()
    groups = find_groups(network, torch.zeros(1, 3, 32, 32))
    assert not prune(network, groups, {}).training
    assert prune(network.train(), groups, {}).training


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize(
    "computed",
    [
        lambda conv: l1_unstructured(conv, "weight", 0.5),
        lambda conv: torch.nn.utils.weight_norm(conv),
    ],
)
def test_around_a_computed_weight_the_rest_is_pruned(computed: Callable) -> None:
    network = randomise(resnet18().double().eval(), 1)
    computed(network.layer1[0].conv1)
    groups = find_groups(network, images(32), strict=False)
    keep = select(l1(network, groups), fraction=0.5)
    narrow = prune(network, groups, keep)
    with torch.no_grad(), masked(network, groups, keep) as wide:
        torch.testing.assert_close(narrow(images(32)), wide(images(32)))


def test_lazy_layers_and_other_examples_get_a_sentence() -> None:
    lazy = nn.Sequential(nn.LazyConv2d(4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(PruningError, match="0 doesn't know its widths yet: run the network once"):
        find_groups(lazy, torch.zeros(1, 3, 4, 4))
    with pytest.raises(PruningError, match="example must be one tensor"):
        find_groups(resnet18(), (torch.zeros(1, 3, 32, 32),))  # type: ignore[arg-type]
