"""Notebook 02, the whole ResNet-18: the plan of its blocks, and its way from image to scores."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.lessons.compare import whole
from course_lib.lessons.exercise import Case, Exercise, Mistake
from course_lib.resnet import conv3x3, resnet_config


def plan(base: int) -> list[tuple[int, int, int]]:
    """(width in, width out, stride) of the eight blocks of a ResNet-18 with `base` stem filters."""
    config, width, blocks = resnet_config(18, base_width=base), base, []
    for stage in config.stages:
        for block in stage:
            blocks.append((width, block.widths[-1], block.stride))
            width = block.widths[-1]
    return blocks


def run(network: Any, x: Tensor) -> Tensor:
    """Images [N, 3, H, W] → scores [N, classes], by the parts conv1, bn1, blocks and fc."""
    x = torch.relu(network.bn1(network.conv1(x)))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    x = network.blocks(x)
    return network.fc(x.mean(dim=(2, 3)))


def _shifted(base: int, strides: tuple[int, ...], entered: bool = True) -> Any:
    widths = [base * 2**stage for stage in (0, 0, 1, 1, 2, 2, 3, 3)]
    before = [base, *widths[:-1]] if entered else widths
    return list(zip(before, widths, strides, strict=True))


class _Parts(nn.Module):
    """A small network of the parts that `run` is given."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(conv3x3(4, 8, 2), nn.BatchNorm2d(8))
        self.fc = nn.Linear(8, classes)


def _networks() -> list[Case]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [(_Parts(n), torch.randn(2, 3, size, size)) for n, size in ((3, 16), (5, 24))]


def _stem(network: Any, x: Tensor, relu: bool = True, pool: bool = True) -> Tensor:
    x = network.bn1(network.conv1(x))
    x = torch.relu(x) if relu else x
    return network.blocks(F.max_pool2d(x, 3, stride=2, padding=1) if pool else x)


NETWORK = (
    Exercise(
        id="02.7",
        title="the plan of ResNet-18",
        solution=plan,
        cases=lambda: [(64,), (16,)],
        compare=whole,
        praise="Eight blocks in four stages: figure 2 in numbers.",
        mistakes=(
            Mistake(
                lambda base: _shifted(base, (2, 1, 2, 1, 2, 1, 2, 1)),
                "Your first stage halves the image: the stem has done that twice, so stage 1 keeps"
                " the size.",
            ),
            Mistake(
                lambda base: _shifted(base, (1, 1, 2, 2, 2, 2, 2, 2)),
                "Both blocks of your later stages halve the image: only the first one does.",
            ),
            Mistake(
                lambda base: _shifted(base, (1, 1, 2, 1, 2, 1, 2, 1), entered=False),
                "A block reads what the block before it wrote: the first block of a stage gets the"
                " width of the stage before.",
            ),
            Mistake(
                lambda base: _shifted(base, (1,) * 8),
                "No block halves the image: from stage 2 on, the first block of a stage has"
                " stride 2.",
            ),
        ),
    ),
    Exercise(
        id="02.8",
        title="from an image to scores",
        solution=run,
        cases=_networks,
        praise="Stem, blocks, average, classifier: this runs a ResNet of any depth.",
        mistakes=(
            Mistake(
                lambda network, x: network.fc(_stem(network, x, relu=False).mean(dim=(2, 3))),
                "The ReLU after the stem's batch norm is missing.",
            ),
            Mistake(
                lambda network, x: network.fc(_stem(network, x, pool=False).mean(dim=(2, 3))),
                "The max pooling of the stem is missing: the blocks get images twice as large.",
            ),
            Mistake(
                lambda network, x: network.fc(_stem(network, x).amax(dim=(2, 3))),
                "You took the largest value of each channel at the end: a ResNet takes the mean.",
            ),
            Mistake(
                lambda network, x: _stem(network, x).mean(dim=(2, 3)),
                "These are the features: the linear layer `fc` makes scores of them.",
            ),
            Mistake(
                lambda network, x: network.fc(_stem(network, x)),
                "The mean over height and width is missing: `fc` reads one number per channel.",
            ),
            Mistake(
                lambda network, x: network.fc(_stem(network, x).flatten(1)),
                "You flattened the channels into one row: `fc` reads the mean of each channel"
                " instead, over its height and width.",
            ),
        ),
    ),
)
