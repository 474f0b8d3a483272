"""What removing a filter touches: a map of a residual network, and the tensors that are cut."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor, nn

from course_lib.plots.style import BLACK, BLUE, LARGE, ORANGE, SKY, SMALL
from course_lib.pruning import Group

# Told apart by hatching and by the words' colour as well, so that a grey print can be read.
LOOKS: dict[str, dict[str, Any]] = {
    "producer": {"facecolor": ORANGE, "hatch": "///"},
    "norm": {"facecolor": SKY, "hatch": "..."},
    "reader": {"facecolor": BLUE},
    "": {"facecolor": "white"},
}
WORDS = {
    "producer": "loses a filter",
    "norm": "loses its numbers for the channel",
    "reader": "loses an input channel",
}
WIDE, TALL, NORM_TALL = 0.84, 0.42, 0.34  # of a box, in units of the map
UPPER = 1.25  # where the shortcuts are


def roles(group: Group | None) -> dict[str, str]:
    """Layer → what it is to the group."""
    if group is None:
        return {}
    found = dict.fromkeys(group.producers, "producer")
    found.update(dict.fromkeys(group.norms, "norm"))
    return found | {name: "reader" for name, _ in group.readers}


def told(group: Group) -> str:
    """The group in a sentence, for the alt text."""

    def names(layers: tuple[str, ...]) -> str:
        return ", ".join(layers) or "none"

    readers = tuple(name for name, _ in group.readers)
    return (
        f"In the group {group.name} of {group.size} channels a filter is removed from"
        f" {names(group.producers)}; the channel's numbers from {names(group.norms)}; an input"
        f" channel from {names(readers)}."
    )


def draw_map(axes: Axes, network: nn.Module, group: Group | None) -> None:
    """A residual network of basic blocks from left to right, and the part each layer has in
    `group`. Above the main path are the shortcuts: a 1×1 convolution, or nothing but a line.
    """
    part = roles(group)
    axes.axis("off")
    _conv(axes, 0, 0, "stem", part.get("conv1", ""), part.get("bn1", ""))
    x = 1.0
    for stage, blocks in network.named_children():
        if stage.startswith("layer"):
            for number, block in blocks.named_children():
                _block(axes, x, f"{stage}.{number}", block, part)
                x += 2.75
    _box(axes, x, 0, TALL, "fc", part.get("fc", ""))
    axes.plot([0, x], [0, 0], color=BLACK, lw=1, zorder=0)
    axes.set_xlim(-0.5, x + 0.5)
    axes.set_ylim(-0.65, UPPER + 0.65)
    handles = [Patch(**LOOKS[name], edgecolor=BLACK, label=WORDS[name]) for name in WORDS]
    below: dict[str, Any] = {"bbox_to_anchor": (0.5, 0.0), "borderaxespad": 0.2}
    look: dict[str, Any] = {"ncols": 3, "frameon": False, "fontsize": SMALL, **below}
    axes.legend(handles=handles, loc="upper center", **look)


def draw_cuts(
    part: Figure | SubFigure, network: nn.Module, group: Group, index: int, spacious: bool = False
) -> None:
    """The size of every number in the tensors of a group, and what goes with channel `index`.

    Convolutions: a row per filter, a column per input channel, grey by the mean size of the
    kernel's weights. Batch norms: a row per channel; scale, shift, mean, variance. spacious: there
    is room to write at each panel what its rows and columns are.
    """
    names = [*group.producers, *group.norms, *(name for name, _ in group.readers)]
    columns = dict(group.readers)
    part_of = roles(group)
    for axes, name in zip(part.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        layer = network.get_submodule(name)
        matrix = _matrix(layer)
        rows, width = matrix.shape
        axes.imshow(matrix.numpy(), cmap="Greys", aspect="auto", vmin=0, interpolation="nearest")
        at, size = (-0.5, index - 0.5), (width, 1)
        if part_of[name] == "reader":
            at, size = (index * columns[name] - 0.5, -0.5), (columns[name], rows)
        look = LOOKS[part_of[name]]
        axes.add_patch(Rectangle(at, *size, edgecolor=BLACK, lw=1, **look))
        short = re.sub(r"^(layer\d\.\d)\.", r"\1\n", name), f"{rows}×{width}", ""
        title, across, down = _panel_words(name, layer, rows, width) if spacious else short
        axes.set_title(title, fontsize=SMALL)
        axes.set_xlabel(across, fontsize=SMALL)
        axes.set_ylabel(down, fontsize=SMALL)
        axes.set_xticks([])
        axes.set_yticks([])


def _panel_words(name: str, layer: nn.Module, rows: int, width: int) -> tuple[str, str, str]:
    """A panel's title, and what its columns and its rows are."""
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return f"layer {name}: batch norm", "scale, shift, mean, variance", f"{rows} channels"
    if isinstance(layer, nn.Linear):
        return f"layer {name}: linear", f"{width} inputs", f"{rows} outputs"
    return f"layer {name}: convolution", f"{width} input channels", f"{rows} filters"


def draw_group(
    figure: Figure | SubFigure,
    network: nn.Module,
    groups: Mapping[str, Group],
    name: str,
    index: int | None = None,
) -> None:
    """The map, and below it what is cut where channel `index` goes; without an index, the map."""
    group = groups[name]
    if index is None:
        draw_map(figure.subplots(), network, group)
        figure.set_label(told(group))
        return
    index = min(index, group.size - 1)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.1, 1)).ravel()
    upper.suptitle(f"Channel {index} of the group {name}", fontsize=LARGE)
    draw_map(upper.subplots(), network, group)
    draw_cuts(lower, network, group, index)
    figure.set_label(f"Channel {index} of {group.size} is removed. {told(group)}")


def _matrix(layer: Any) -> Tensor:
    """Filters × input channels of a layer with weights, channels × 4 of a batch norm."""
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        names = ("weight", "bias", "running_mean", "running_var")
        sizes = torch.stack([getattr(layer, name).detach().abs() for name in names], dim=1)
        return sizes / sizes.amax(0, keepdim=True).clamp_min(1e-9)
    weight = layer.weight.detach().abs()
    return weight.flatten(2).mean(2) if weight.dim() > 2 else weight


def _block(axes: Axes, x: float, name: str, block: Any, part: Mapping[str, str]) -> None:
    """Two convolutions, the addition, and the shortcut over them."""
    start, plus = x - 0.52, x + 1.78
    axes.plot([start, start, plus, plus], [0, UPPER, UPPER, 0], color=BLACK, lw=1, zorder=0)
    for step in (1, 2):
        role = part.get(f"{name}.conv{step}", "")
        _conv(axes, x + step - 1, 0, f"conv{step}", role, part.get(f"{name}.bn{step}", ""))
    axes.plot([plus], [0], "o", ms=12, mfc="white", mec=BLACK)
    axes.text(plus, 0, "+", ha="center", va="center_baseline", fontsize=LARGE)
    layers = list(block.shortcut.children())
    if layers:
        norm = part.get(f"{name}.shortcut.1", "") if len(layers) > 1 else None
        _conv(axes, x + 0.6, UPPER, "1×1", part.get(f"{name}.shortcut.0", ""), norm)
    axes.text(x + 0.6, UPPER + 0.42, name, ha="center", fontsize=SMALL)


def _conv(axes: Axes, x: float, y: float, label: str, role: str, norm: str | None) -> None:
    _box(axes, x, y, TALL, label, role)
    if norm is not None:
        _box(axes, x, y - (TALL + NORM_TALL) / 2, NORM_TALL, "norm", norm)


def _box(axes: Axes, x: float, y: float, tall: float, label: str, role: str) -> None:
    corner = (x - WIDE / 2, y - tall / 2)
    axes.add_patch(Rectangle(corner, WIDE, tall, edgecolor=BLACK, lw=1, **LOOKS[role]))
    colour = "white" if role == "reader" else BLACK
    plate = {"facecolor": LOOKS[role]["facecolor"], "edgecolor": "none", "pad": 0.8}
    axes.text(*(x, y, label), ha="center", va="center", fontsize=SMALL, color=colour, bbox=plate)
