"""Residual networks, described by the widths of their layers.

He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv 1512.03385. Layers carry
torchvision's names, but `shortcut` for `downsample`, so that weights can be exchanged both ways.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from course_lib.errors import CourseError

# Bottleneck or not, and the number of blocks in each of the four stages (He et al., table 1).
DEPTHS = {18: (False, (2, 2, 2, 2)), 34: (False, (3, 4, 6, 3)), 50: (True, (3, 4, 6, 3))}


@dataclass(frozen=True)
class BlockConfig:
    """One residual block.

    `widths`: filters of its convolutions, two for a basic block, three for a bottleneck.
    `projection`: what the shortcut does: "none" (the identity), "norm" (1×1 convolution and batch
    norm) or "bare" (1×1 convolution alone).
    """

    widths: tuple[int, ...]
    stride: int = 1
    projection: str = "none"


@dataclass(frozen=True)
class ResNetConfig:
    """A whole network: filters of its stem, stages of blocks, classes, channels of its images.

    `small_images`: a 3×3 stem without pooling, for images of about 32 pixels; else ImageNet's, 7×7.
    """

    stem: int
    stages: tuple[tuple[BlockConfig, ...], ...]
    classes: int
    channels: int = 3
    small_images: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which torch.load(weights_only=True) and JSON can read."""
        return asdict(self)

    @staticmethod
    def from_dict(saved: dict[str, Any]) -> ResNetConfig:
        """The inverse of `to_dict`, also after JSON has turned tuples into lists."""
        stages = tuple(
            tuple(BlockConfig(**{**block, "widths": tuple(block["widths"])}) for block in stage)
            for stage in saved["stages"]
        )
        return ResNetConfig(**{**saved, "stages": stages})


def resnet_config(
    depth: int = 18,
    classes: int = 1000,
    *,
    base_width: int = 64,
    channels: int = 3,
    small_images: bool = False,
    projection: str = "all",
    projection_norm: bool = True,
) -> ResNetConfig:
    """The widths of a standard ResNet-18, 34 or 50.

    `projection`: "needed" puts a projection shortcut only where the shape changes, as torchvision
    does; "all" puts one on every block (He et al.'s option C), so that each block's output can be
    pruned by itself.
    `projection_norm`: whether the projections have a batch norm.
    Raises CourseError for a depth or projection it doesn't know.
    """
    if depth not in DEPTHS:
        raise CourseError(f"There is no ResNet-{depth} here: choose a depth of 18, 34 or 50.")
    if projection not in ("needed", "all"):
        raise CourseError(f'projection={projection!r} is unknown: choose "needed" or "all".')
    bottleneck, counts = DEPTHS[depth]
    kind = "norm" if projection_norm else "bare"
    stages, width_in = [], base_width
    for stage, count in enumerate(counts):
        inner = base_width * 2**stage
        widths = (inner, inner, 4 * inner) if bottleneck else (inner, inner)
        blocks = []
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            needed = stride != 1 or width_in != widths[-1]
            shortcut = kind if needed or projection == "all" else "none"
            blocks.append(BlockConfig(widths, stride, shortcut))
            width_in = widths[-1]
        stages.append(tuple(blocks))
    return ResNetConfig(base_width, tuple(stages), classes, channels, small_images)


def conv3x3(width_in: int, width_out: int, stride: int = 1) -> nn.Conv2d:
    """A 3×3 convolution that keeps the positions, strides apart; batch norm makes a bias idle."""
    return nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False)


def conv1x1(width_in: int, width_out: int, stride: int = 1) -> nn.Conv2d:
    """A 1×1 convolution: the same matrix at every position."""
    return nn.Conv2d(width_in, width_out, 1, stride, bias=False)


def make_shortcut(width_in: int, config: BlockConfig) -> nn.Module:
    """The shortcut of a block: the identity, or a 1×1 convolution with or without batch norm."""
    width_out = config.widths[-1]
    if config.projection == "none":
        if width_in != width_out or config.stride != 1:
            raise CourseError('A block that changes the shape needs projection="norm" or "bare".')
        return nn.Identity()
    projection = conv1x1(width_in, width_out, config.stride)
    if config.projection == "bare":
        return nn.Sequential(projection)
    return nn.Sequential(projection, nn.BatchNorm2d(width_out))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, the first with the stride, and a shortcut."""

    def __init__(self, width_in: int, config: BlockConfig) -> None:
        super().__init__()
        inner, width_out = config.widths
        self.conv1 = conv3x3(width_in, inner, config.stride)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv3x3(inner, width_out)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.shortcut = make_shortcut(width_in, config)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return torch.relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, the 3×3 one with the stride (version 1.5), and a shortcut."""

    def __init__(self, width_in: int, config: BlockConfig) -> None:
        super().__init__()
        first, second, width_out = config.widths
        self.conv1 = conv1x1(width_in, first)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = conv3x3(first, second, config.stride)
        self.bn2 = nn.BatchNorm2d(second)
        self.conv3 = conv1x1(second, width_out)
        self.bn3 = nn.BatchNorm2d(width_out)
        self.shortcut = make_shortcut(width_in, config)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network: images [N, channels, H, W] → logits [N, classes]."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        if config.small_images:
            self.conv1 = conv3x3(config.channels, config.stem)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(config.channels, config.stem, 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(config.stem)
        width = config.stem
        for number, stage in enumerate(config.stages, start=1):
            blocks = []
            for block in stage:
                blocks.append((BasicBlock if len(block.widths) == 2 else Bottleneck)(width, block))
                width = block.widths[-1]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, config.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for stage in stages_of(self):
            x = stage(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def stages_of(network: nn.Module) -> list[nn.Module]:
    """layer1, layer2, … of one of our networks or of torchvision's."""
    return [module for name, module in network.named_children() if name.startswith("layer")]


def config_of(network: nn.Module) -> ResNetConfig:
    """Read the widths off a network, pruned or not, ours or torchvision's.

    Raises CourseError, naming the layer, for a network that its config wouldn't describe in full.
    """
    conv1, fc = getattr(network, "conv1", None), getattr(network, "fc", None)
    ours_or_theirs = isinstance(network, (ResNet, torchvision.models.ResNet))
    if not (ours_or_theirs and isinstance(conv1, nn.Conv2d) and isinstance(fc, nn.Linear)):
        raise CourseError("config_of reads course_lib's or torchvision's ResNet with a linear fc.")
    config = ResNetConfig(
        stem=conv1.out_channels,
        stages=tuple(tuple(map(_block_config, stage.children())) for stage in stages_of(network)),
        classes=fc.out_features,
        channels=conv1.in_channels,
        small_images=conv1.kernel_size == (3, 3),
    )
    with torch.device("meta"):
        plain = _layers(ResNet(config))
    found = _layers(network)
    for name in {**plain, **found}:
        if found.get(name) != plain.get(name):
            raise CourseError(
                f"{name} is {found.get(name, 'missing')}, where a plain ResNet has "
                f"{plain.get(name, 'nothing')}: config_of can't describe it."
            )
    return config


def _block_config(block: nn.Module) -> BlockConfig:
    convolutions = [child for child in block.children() if isinstance(child, nn.Conv2d)]
    if not convolutions:
        raise CourseError(f"config_of can't describe a block that is {type(block).__name__}.")
    shortcut = getattr(block, "shortcut", getattr(block, "downsample", None)) or nn.Identity()
    projection = ("none", "bare", "norm")[min(2, len(list(shortcut.children())))]
    widths = tuple(conv.out_channels for conv in convolutions)
    return BlockConfig(widths, max(conv.stride[0] for conv in convolutions), projection)


def _layers(network: nn.Module) -> dict[str, str]:
    """Each layer in words, but for torchvision's ReLUs, functions in ours, and what stands idle."""
    return {
        name.replace("downsample", "shortcut"): repr(layer).replace("(1, 1)", "1")
        for name, layer in network.named_modules()
        if not list(layer.children())
        and type(layer) is not (nn.ReLU if name.endswith("relu") else nn.Identity)
    }


def from_torchvision(network: torchvision.models.ResNet) -> ResNet:
    """Our network with the weights of torchvision's; both compute the same function."""
    return _filled(ResNet(config_of(network)), network, "downsample", "shortcut")


def to_torchvision(network: ResNet) -> torchvision.models.ResNet:
    """torchvision's network with our weights.

    Raises CourseError when torchvision has no such network, as after pruning.
    """
    config = config_of(network)
    basic = len(config.stages[0][0].widths) == 2
    block = torchvision.models.resnet.BasicBlock if basic else torchvision.models.resnet.Bottleneck
    counts = [len(stage) for stage in config.stages]
    counts += [1] * (4 - len(counts))  # torchvision's has four stages: with fewer, they'll differ
    theirs = torchvision.models.ResNet(block, counts, num_classes=config.classes)
    if config_of(theirs) != config:
        raise CourseError(
            "torchvision has no ResNet of these widths or shortcuts: convert an unpruned one with "
            'projection="needed", 64 base filters, the ImageNet stem and 3 channels.'
        )
    return _filled(theirs, network, "shortcut", "downsample")


def _filled(network: Any, source: nn.Module, old: str, new: str) -> Any:
    """The network with weights, type, device and mode of `source`, which says `old` for `new`."""
    network.to(next(source.parameters()))
    network.load_state_dict({name.replace(old, new): v for name, v in source.state_dict().items()})
    return network.train(source.training)


def add_projections(network: ResNet) -> ResNet:
    """A new network of the same function in which every block has a projection shortcut.

    New projections are identity 1×1 convolutions *without* batch norm: with one, the first training
    step would standardise the shortcut and wreck a pretrained network.
    """
    if not isinstance(network, ResNet):
        raise CourseError("add_projections takes course_lib's ResNet: use from_torchvision first.")
    projected = copy.deepcopy(network)
    for stage in stages_of(projected):
        for block in stage.children():
            if isinstance(block.shortcut, nn.Identity):
                last = [m for m in block.children() if isinstance(m, nn.Conv2d)][-1]
                projection = conv1x1(last.out_channels, last.out_channels).to(last.weight)
                nn.init.dirac_(projection.weight)
                block.shortcut = nn.Sequential(projection).train(block.training)
    return projected


def saved_form(network: ResNet, **more: Any) -> dict[str, Any]:
    """What a file of one of our networks holds: config, state dict and whatever else is given."""
    state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    return {"config": config_of(network).to_dict(), "state_dict": state, **more}


def from_saved(saved: dict[str, Any]) -> ResNet:
    """The network of a `saved_form`, on the CPU, in evaluation mode."""
    network = ResNet(ResNetConfig.from_dict(saved["config"]))
    network.load_state_dict(saved["state_dict"])
    return network.eval()


def load_network(path: str | Path) -> ResNet:
    """As `from_saved`, from a file. Raises CourseError where that is absent, damaged or foreign."""
    try:
        return from_saved(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception as error:  # torch.load raises whatever its file makes it raise
        why = f"{path} isn't there or isn't a network that course_lib wrote: name another file."
        raise CourseError(why) from error
