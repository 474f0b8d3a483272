"""Random small networks for property tests: ours, torchvision's, and plain chains."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib.pruning import Group
from course_lib.resnet import BlockConfig, ResNet, ResNetConfig

WIDTHS = st.integers(1, 6)


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Weights, affine parameters and running statistics as training might leave them, not as new.

    A new network's batch norms neither shift nor scale, which would hide many a mistake.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif name.endswith("running_mean") or name.endswith("bias"):
            tensor.copy_(0.5 * noise)
        elif tensor.dim() > 1:  # filters, scaled so that values stay of the same size
            tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
        elif tensor.is_floating_point():  # a batch norm's scale, of either sign
            tensor.copy_(noise.sign() * (0.5 + noise.abs()))
    return network


class Plus(nn.Module):
    """x + body(x): what the body reads and what it makes share their channels. Or x − body(x)."""

    def __init__(self, body: nn.Module, combine: Callable = operator.add) -> None:
        super().__init__()
        self.body, self.combine = body, combine

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(x, self.body(x))


def shared(x: Tensor, y: Tensor) -> Tensor:
    """How much of two values is the first: a quotient that rounding can't blow up."""
    return (x * 2).sigmoid() / (x.sigmoid() + y.sigmoid())


class Gated(nn.Module):
    """Squeeze-and-excitation: each channel times (or plus) a number that all channels decide."""

    def __init__(self, width: int, inner: int, times: bool = True) -> None:
        super().__init__()
        self.pool, self.relu, self.times = nn.AdaptiveAvgPool2d(1), nn.ReLU(), times
        self.squeeze, self.excite = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(self.relu(self.squeeze(self.pool(x)))))
        return x * gate if self.times else torch.add(gate, x, alpha=2)


@st.composite
def in_groups(draw: st.DrawFn, width: int) -> nn.Module:
    """Each filter reads its group's channels alone; one channel each in MobileNet, more in
    ResNeXt.
    """
    groups = draw(st.sampled_from([n for n in range(1, width + 1) if width % n == 0]))
    return nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=draw(st.booleans()))


def grouped() -> nn.Module:
    """Depthwise, and three groups of two channels: in the second part an index is two channels."""
    return nn.Sequential(
        *(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, groups=3, padding=1), nn.ReLU()),
        *(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=3, stride=2), nn.BatchNorm2d(6)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(6 * 4, 3)),
    )


class Odd(nn.Module):
    """Something that channels don't pass one by one; `kind` says what."""

    KINDS = ("grouped", "normed", "shuffled", "joined", "own", "read", "tied")

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(width, width, 1)
        self.again = nn.Conv2d(width, width, 1)
        self.doubled = nn.Conv2d(width, 2 * width, 1, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.own = nn.Parameter(torch.ones(1, width, 1, 1))
        if kind == "tied":
            self.again.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.kind == "normed":
            return self.norm(y)
        if self.kind == "shuffled":
            return y.flip(1)
        if self.kind == "joined":
            return torch.cat([y, x], 1)[:, : y.shape[1]]
        if self.kind == "own":
            return y * self.own
        if self.kind == "read":
            return nn.functional.conv2d(y, self.conv.weight)
        if self.kind == "grouped":
            return self.doubled(y)[:, : y.shape[1]]
        return self.again(y)  # tied


class Twice(nn.Module):
    """The same layer called for two values, another one between them."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.between = nn.Conv2d(width, width, 1)
        self.shared = nn.BatchNorm2d(width) if norm else nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(self.between(self.shared(x)))


class SmallStock(torchvision.models.ResNet):
    """torchvision's own blocks, layers and forward, with a few filters instead of 64 to 512."""

    def __init__(self, block: type, counts: list[int], planes: list[int], classes: int) -> None:
        nn.Module.__init__(self)
        self._norm_layer = nn.BatchNorm2d
        self.inplanes, self.dilation, self.groups, self.base_width = planes[0], 1, 1, 64
        self.conv1 = nn.Conv2d(3, planes[0], 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(planes[0]), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, planes[0], counts[0])
        self.layer2 = self._make_layer(block, planes[1], counts[1], stride=2)
        self.layer3 = self._make_layer(block, planes[2], counts[2], stride=2)
        self.layer4 = self._make_layer(block, planes[3], counts[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(planes[3] * block.expansion, classes)


@st.composite
def resnet_configs(draw: st.DrawFn) -> ResNetConfig:
    """Widths that differ from layer to layer, as after pruning; any mixture of shortcuts."""
    bottleneck = draw(st.booleans())
    layout = draw(st.sampled_from(["needed", "all", "mixed"]))
    stem = width = draw(WIDTHS)
    stages = []
    for stage in range(draw(st.integers(1, 3))):
        blocks = []
        for index in range(draw(st.integers(1, 2))):
            stride = 2 if stage > 0 and index == 0 else 1
            same = stride == 1 and layout != "all" and draw(st.booleans())
            inner = tuple(draw(WIDTHS) for _ in range(2 if bottleneck else 1))
            width_out = width if same else draw(WIDTHS)
            identity = same or (layout == "needed" and stride == 1 and width_out == width)
            projection = "none" if identity else draw(st.sampled_from(["norm", "bare"]))
            blocks.append(BlockConfig((*inner, width_out), stride, projection))
            width = width_out
        stages.append(tuple(blocks))
    return ResNetConfig(
        stem,
        tuple(stages),
        classes=draw(st.integers(1, 4)),
        channels=draw(st.sampled_from([1, 3])),
        small_images=draw(st.booleans()),
    )


@st.composite
def stock_networks(draw: st.DrawFn) -> nn.Module:
    stock = torchvision.models.resnet
    block = draw(st.sampled_from([stock.BasicBlock, stock.Bottleneck]))
    counts = draw(st.lists(st.integers(1, 2), min_size=4, max_size=4))
    planes = draw(st.lists(st.integers(1, 4), min_size=4, max_size=4))
    return SmallStock(block, counts, planes, classes=draw(st.integers(1, 4)))


ACTIVATIONS = (nn.ReLU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.Softplus, nn.SiLU, nn.Identity)
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.Identity)


@st.composite
def chains(draw: st.DrawFn, size: int, odd: bool = False) -> nn.Module:
    """Convolutions, optionally with additions and products inside, then flatten and linear layers;
    `odd`: between them also what can't be pruned.
    """
    layers: list[nn.Module] = []
    width = 3
    for _ in range(draw(st.integers(1, 3))):
        width_out = draw(WIDTHS)
        layers += draw(conv_layers(width, width_out))
        width = width_out
        if draw(st.booleans()):
            body = nn.Sequential(*draw(conv_layers(width, width)))
            layers.append(Plus(body, draw(st.sampled_from([operator.add, torch.sub, shared]))))
        if draw(st.booleans()):
            pad = draw(st.sampled_from([nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d]))
            layers += [pad(1), nn.Upsample(size=(size, size))]
        if draw(st.booleans()):
            layers.append(draw(in_groups(width)))
        if draw(st.booleans()):
            layers.append(Gated(width, draw(WIDTHS), times=draw(st.booleans())))
        if odd and draw(st.booleans()):
            kind = draw(st.sampled_from((*Odd.KINDS, "conv twice", "norm twice")))
            twice = Twice(width, norm=kind == "norm twice")
            layers.append(twice if kind.endswith("twice") else Odd(kind, width))
        pool = draw(st.sampled_from(POOLS))
        if pool is not nn.Identity and size > 2:
            layers.append(pool(2))
            size //= 2
    if draw(st.booleans()):
        layers.append(nn.AdaptiveAvgPool2d(2 if size % 2 == 0 else 1))
        size = 2 if size % 2 == 0 else 1
    elif size > 4:
        layers.append(nn.AvgPool2d(size // 2))
        size = 2
    layers.append(nn.Flatten())
    width *= size * size
    for _ in range(draw(st.integers(0, 2))):
        width_out = draw(WIDTHS)
        layers.append(nn.Linear(width, width_out, bias=draw(st.booleans())))
        if draw(st.booleans()):
            layers.append(nn.BatchNorm1d(width_out, affine=draw(st.booleans())))
        layers.append(draw(st.sampled_from(ACTIVATIONS))())
        width = width_out
    layers.append(nn.Linear(width, draw(st.integers(1, 4))))
    return nn.Sequential(*layers)


@st.composite
def conv_layers(draw: st.DrawFn, width_in: int, width_out: int) -> list[nn.Module]:
    kernel = draw(st.sampled_from([1, 3]))
    layers: list[nn.Module] = [
        nn.Conv2d(width_in, width_out, kernel, padding=kernel // 2, bias=draw(st.booleans()))
    ]
    if draw(st.booleans()):
        affine, tracked = draw(st.booleans()), draw(st.booleans())
        layers.append(nn.BatchNorm2d(width_out, affine=affine, track_running_stats=tracked))
    layers.append(draw(st.sampled_from(ACTIVATIONS))())
    return layers


@dataclass(frozen=True)
class Case:
    """A network in double precision and images for it: [N, C, H, W]."""

    network: nn.Module
    images: Tensor
    seed: int


# A batch norm in training divides by the spread of what it sees, and where that is nearly nothing,
# behind a dead ReLU in a map of one pixel, it multiplies rounding by 1 / sqrt(eps): with the usual
# eps by 316, and a chain of three by 30 million. So where a case is trained there are more images,
# and eps is large; what is tested holds for every eps.
FEW, MANY, TRAINED_EPS = 4, 32, 0.1


@st.composite
def cases(draw: st.DrawFn, trained: bool = False, odd: bool = False) -> Case:
    """Any of the networks, and images for it; `trained`: fit for steps of an optimiser; `odd`: one
    that holds what can't be pruned.
    """
    size, seed = draw(st.sampled_from([8, 12, 16])), draw(st.integers(0, 2**32 - 1))
    plain = st.one_of(resnet_configs().map(ResNet), stock_networks(), chains(size), chains(size))
    network = draw(chains(size, odd=True) if odd else plain)
    channels = next(m for m in network.modules() if isinstance(m, nn.Conv2d)).in_channels
    generator = torch.Generator().manual_seed(seed)
    for norm in network.modules():
        if trained and isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.eps = TRAINED_EPS
    count = MANY if trained else FEW
    images = torch.randn(count, channels, size, size, generator=generator, dtype=torch.float64)
    return Case(randomise(network.double(), seed), images, seed)


@st.composite
def plans(draw: st.DrawFn, groups: dict[str, Group]) -> dict[str, Tensor]:
    """For every group: not named, all kept, one kept, or any of its indices."""
    keep = {}
    for name, group in groups.items():
        kind = draw(st.sampled_from(["some", "some", "one", "all", "absent"]))
        if kind == "all":
            keep[name] = torch.arange(group.size)
        elif kind != "absent":
            most = 1 if kind == "one" else group.size
            kept = draw(st.sets(st.integers(0, group.size - 1), min_size=1, max_size=most))
            keep[name] = torch.tensor(sorted(kept))
    return keep
