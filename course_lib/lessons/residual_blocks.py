"""Notebook 02: blocks and shortcuts; also convolutions.py and whole_network.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.lessons.convolutions import CONVOLUTION
from course_lib.lessons.exercise import Case, Exercise, Mistake
from course_lib.lessons.prediction import Question
from course_lib.lessons.whole_network import NETWORK
from course_lib.resnet import conv1x1, conv3x3

Layer = Callable[[Tensor], Tensor]


def residual(x: Tensor, conv1: Layer, bn1: Layer, conv2: Layer, bn2: Layer, shortcut: Layer) -> Any:
    """What a basic block computes from x, [N, C, H, W]."""
    out = torch.relu(bn1(conv1(x)))
    out = bn2(conv2(out))
    return torch.relu(out + shortcut(x))


def make_shortcut(width_in: int, width_out: int, stride: int) -> nn.Module:
    """The identity where the shape stays, else a 1×1 convolution and batch norm."""
    if width_in == width_out and stride == 1:
        return nn.Identity()
    return nn.Sequential(conv1x1(width_in, width_out, stride), nn.BatchNorm2d(width_out))


def free_shortcut(x: Tensor, width_out: int) -> Tensor:
    """He et al.'s option A: [N, C, H, W] → [N, width_out, H/2, W/2] without parameters."""
    small = x[:, :, ::2, ::2]
    zeros = torch.zeros(len(x), width_out - x.shape[1], *small.shape[2:])
    return torch.cat([small, zeros], dim=1)


def _layers() -> list[Case]:
    """A block that keeps its shape, small enough to be shown, and one with a projection."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cases = []
        for width, shortcut in ((1, nn.Identity()), (3, conv1x1(3, 3))):
            norms = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
            for norm in norms:
                nn.init.uniform_(norm.bias)
            convs = conv3x3(width, width), conv3x3(width, width)
            x = torch.randn(2, width, 2, 2)
            cases.append((x, convs[0], norms[0], convs[1], norms[1], shortcut))
    return cases


def _overwritten(
    x: Tensor, conv1: Layer, bn1: Layer, conv2: Layer, bn2: Layer, shortcut: Layer
) -> Any:
    x = torch.relu(bn1(conv1(x)))
    x = bn2(conv2(x))
    return torch.relu(x + shortcut(x))


def _described(answer: Any, case: Case) -> Any:
    """What a shortcut is made of, in words."""
    made = answer(*case)
    if made is None:
        return None
    if not isinstance(made, nn.Module):
        raise TypeError(f"a layer is expected, not {made!r:.40}")
    found = [repr(layer) for layer in made.modules() if not isinstance(layer, nn.Sequential)]
    if isinstance(made, nn.Sequential) and found == [repr(nn.Identity())]:
        return [f"{found[0]} inside a Sequential"]  # later cells take a Sequential for a projection
    return found


def _always(width_in: int, width_out: int, stride: int) -> nn.Module:
    return nn.Sequential(conv1x1(width_in, width_out, stride), nn.BatchNorm2d(width_out))


def _if_needed(make: Callable[[int, int, int], nn.Module]) -> Callable[..., nn.Module]:
    def wrong(width_in: int, width_out: int, stride: int) -> nn.Module:
        kept = width_in == width_out and stride == 1
        return nn.Identity() if kept else make(width_in, width_out, stride)

    return wrong


def _for_widths_only(width_in: int, width_out: int, stride: int) -> nn.Module:
    same = width_in == width_out
    return nn.Identity() if same else make_shortcut(width_in, width_out, stride)


def _images() -> list[Case]:
    """The pixel to take isn't always the largest or the smallest of its 2×2 patch."""
    first = torch.tensor([[[[2.0, 4.0], [1.0, 3.0]]]])
    return [(first, 2), ((torch.arange(96.0) * 7 % 11).reshape(2, 3, 4, 4), 5)]


def _free(pick: Callable[[Tensor], Tensor], front: bool = False) -> Callable[..., Tensor]:
    def wrong(x: Tensor, width_out: int) -> Tensor:
        small = pick(x)
        zeros = torch.zeros(len(x), width_out - x.shape[1], *small.shape[2:])
        return torch.cat([zeros, small] if front else [small, zeros], dim=1)

    return wrong


_BLOCKS = (
    Exercise(
        id="02.4",
        title="a residual block",
        solution=residual,
        cases=_layers,
        praise="Two paths, one addition: this is the block of figure 3.",
        mistakes=(
            Mistake(
                lambda x, conv1, bn1, conv2, bn2, shortcut: (
                    torch.relu(bn2(conv2(torch.relu(bn1(conv1(x)))))) + shortcut(x)
                ),
                "The last ReLU comes before your addition: it belongs after it.",
            ),
            Mistake(
                lambda x, conv1, bn1, conv2, bn2, shortcut: (
                    bn2(conv2(torch.relu(bn1(conv1(x))))) + shortcut(x)
                ),
                "The ReLU after the addition is missing: your output has negative numbers.",
            ),
            Mistake(
                lambda x, conv1, bn1, conv2, bn2, shortcut: torch.relu(
                    bn2(conv2(torch.relu(bn1(conv1(x)))))
                ),
                "The shortcut is missing: this is a plain pair of layers.",
            ),
            Mistake(
                lambda x, conv1, bn1, conv2, bn2, shortcut: torch.relu(
                    bn2(conv2(bn1(conv1(x)))) + shortcut(x)
                ),
                "Nothing stands between your two convolutions but batch norm: without a ReLU they"
                " could be merged into one.",
            ),
            Mistake(
                lambda x, conv1, bn1, conv2, bn2, shortcut: torch.relu(
                    bn2(conv2(torch.relu(bn1(conv1(x))))) + x
                ),
                "You added x itself: it goes through `shortcut` first, which need not be the"
                " identity.",
            ),
            Mistake(_overwritten, "You overwrote x: the shortcut needs the block's input."),
            Mistake(
                lambda x, conv1, bn1, conv2, bn2, shortcut: residual(
                    x, conv1, bn2, conv2, bn1, shortcut
                ),
                "Your two batch norms are swapped: bn1 comes after conv1, bn2 after conv2.",
            ),
            Mistake(
                lambda x, conv1, bn1, conv2, bn2, shortcut: residual(
                    x, conv1, bn1, conv1, bn2, shortcut
                ),
                "You used conv1 twice: the second convolution is conv2.",
            ),
        ),
    ),
    Exercise(
        id="02.5",
        title="the shortcut that a block needs",
        solution=make_shortcut,
        cases=lambda: [(4, 4, 1), (4, 8, 1), (4, 8, 2), (4, 4, 2)],
        use=_described,
        praise="Widths and sizes now agree at every addition.",
        mistakes=(
            Mistake(
                _always,
                "You always project: where neither width nor size changes, the identity will do.",
            ),
            Mistake(
                _if_needed(lambda a, b, _: _always(a, b, 1)),
                "The stride is missing: the main path has become smaller, the shortcut hasn't.",
            ),
            Mistake(
                _if_needed(lambda a, b, s: conv1x1(a, b, s)),
                "The batch norm after the 1×1 convolution is missing.",
            ),
            Mistake(
                _if_needed(lambda a, b, s: nn.Sequential(nn.Conv2d(a, b, 1, s), nn.BatchNorm2d(b))),
                "Your convolution has a bias, which the batch norm after it subtracts again:"
                " bias=False.",
            ),
            Mistake(
                _for_widths_only,
                "You look only at the widths: a stride changes the shape too.",
            ),
            Mistake(
                lambda a, b, s: nn.Identity() if a == b or s == 1 else _always(a, b, s),
                "You keep the identity where only one of the two stays, width or size: both must.",
            ),
            Mistake(
                lambda a, b, s: nn.Sequential() if a == b and s == 1 else _always(a, b, s),
                "An empty nn.Sequential computes the identity, but later cells take a Sequential"
                " for a projection: return nn.Identity().",
            ),
            Mistake(
                lambda a, b, s: (
                    nn.Sequential(nn.Identity()) if a == b and s == 1 else _always(a, b, s)
                ),
                "Your identity is inside an nn.Sequential: return nn.Identity() itself.",
            ),
        ),
    ),
    Exercise(
        id="02.6",
        title="bug hunt: a misaligned shortcut",
        solution=free_shortcut,
        cases=_images,
        praise="The two paths now refer to the same place in the image.",
        handed_out=Mistake(
            _free(lambda x: x[:, :, 1::2, 1::2]),
            "The shapes fit, but each position of the shortcut comes from one pixel further down"
            " and to the right than the position that the main path is centred on.",
        ),
        mistakes=(
            Mistake(
                _free(lambda x: x[:, :, ::2, ::2], front=True),
                "The positions are right, but now the zeros come first: channel 0 must stay"
                " channel 0.",
            ),
            Mistake(
                _free(lambda x: F.avg_pool2d(x, 2)),
                "You average each 2×2 patch. That is a shortcut too, but centred between pixels:"
                " take the pixel that the strided convolution is centred on.",
            ),
            Mistake(
                _free(lambda x: x[:, :, : x.shape[2] // 2, : x.shape[3] // 2]),
                "You cut out the upper left quarter: take every second position instead.",
            ),
            Mistake(
                _free(lambda x: F.max_pool2d(x, 2)),
                "You take the largest number of each 2×2 patch, wherever it stands: take the pixel"
                " that the strided convolution is centred on.",
            ),
        ),
    ),
)

EXERCISES = (*CONVOLUTION, *_BLOCKS, *NETWORK)

QUESTIONS = (
    Question(
        "02.p1",
        "The number of blocks of a ResNet-18 that need a projection",
        high=8,
        form=".0f",
        close=0,
        exact=True,
    ),
    Question(
        "02.p2",
        "The share of parameters that projections in all blocks add",
        high=1,
        form=".1%",
        close=0.01,
        exact=True,
    ),
    Question(
        "02.p3",
        "An identity projection with a fresh batch norm changes the output",
        choices=("in no mode", "in evaluation mode only", "in training mode only", "in both modes"),
    ),
)
