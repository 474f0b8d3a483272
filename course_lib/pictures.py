"""Pictures for the report: the widths of a network before and after, images inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from course_lib.plots.style import BLACK, BLUE, DPI, LARGE, NORMAL, SKY, SMALL, WIDTH

ROW = 0.27  # inches of height for each layer
LARGEST_EXAMPLE = 192  # pixels on a side; larger images are scaled down for the page
SMALL_EXAMPLE = 96  # an image below this is shown enlarged, with its pixels as squares


def widths_figure(full: Mapping[str, int], final: Mapping[str, int]) -> Figure:
    """How many filters of each group are left: the full network in outline, the pruned one filled.

    full, final: group name → filters, in the order of the network, the same names in both.
    """
    names, rows = list(full), range(len(full))
    figure = Figure(figsize=(WIDTH, 1.3 + ROW * len(names)), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    left = [final[name] for name in names]
    axes.barh(rows, left, height=0.75, color=SKY, label="pruned network")
    whole = [full[name] for name in names]
    outline: dict[str, Any] = {"facecolor": "none", "edgecolor": BLUE, "linewidth": 1.2}
    axes.barh(rows, whole, height=0.75, label="full network", **outline)
    for row, name in enumerate(names):
        label = f" {final[name]} of {full[name]}"
        axes.text(full[name], row, label, va="center", fontsize=SMALL, color=BLACK)
    axes.set_yticks(rows, names, fontsize=SMALL)
    axes.set_ylim(len(names) - 0.4, -0.6)  # the first layer at the top
    axes.set_xlim(0, 1.15 * max(whole))
    axes.set_xlabel("filters that can be removed", fontsize=NORMAL)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    title, text = _width_words(full, final)
    axes.set_title(title, fontsize=LARGE, loc="left")
    figure.legend(loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False)
    figure.set_label(text)
    return figure


def _width_words(full: Mapping[str, int], final: Mapping[str, int]) -> tuple[str, str]:
    """Title and alt text."""
    kept, total = sum(final.values()), sum(full.values())
    title = f"{kept:,} of {total:,} removable filters are left ({kept / total:.1%})"
    share = {name: final[name] / full[name] for name in full}
    least, most = min(share, key=share.__getitem__), max(share, key=share.__getitem__)
    text = (
        f"Bar chart of the filters of {len(full)} layers, before and after pruning. {title}:"
        f" from {share[least]:.0%} in {least} ({final[least]} of {full[least]})"
        f" to {share[most]:.0%} in {most} ({final[most]} of {full[most]})."
    )
    return title, text


def figure_uri(figure: Figure) -> str:
    """The figure as an SVG inside an address, sharp at every size; the same bytes each time."""
    file = io.BytesIO()
    # Without a fixed salt, Matplotlib would name the parts of the drawing differently each time.
    with matplotlib.rc_context({"svg.hashsalt": "course"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _data_uri("image/svg+xml", file.getvalue())


def image_uri(pixels: np.ndarray) -> str:
    """An image uint8 [H, W, C] as a PNG inside an address; C is 3, or 1 for grey."""
    grey = pixels.shape[2] == 1
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if grey else pixels))
    image.thumbnail((LARGEST_EXAMPLE, LARGEST_EXAMPLE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return _data_uri("image/png", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
