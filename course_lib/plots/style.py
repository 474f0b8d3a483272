"""What every figure shares: colours, sizes, the blank axes, the alt text.

Figures are built without pyplot, so nothing here needs a display or leaves state behind. Each
carries a sentence of alt text that holds its numbers: `alt_text(figure)`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/): told apart by colour-blind people.
# Marks differ in shape and lines in dashes as well, so that a grey print can be read.
BLUE, ORANGE, RED, SKY, BLACK = "#0072B2", "#E69F00", "#D55E00", "#56B4E9", "#000000"
PURPLE = "#CC79A7"  # for the learner's prediction and nothing else
SMALL, NORMAL, LARGE = 9, 10, 11  # points; the figures are made for 800 pixels' width
WIDTH, HEIGHT, DPI = 8.0, 4.5, 100
SCREEN_DPI = 96  # a notebook's pixels: those of a browser
LINES, PHOTOGRAPHS = 64, 256  # colours that a drawing, and one with images in it, is stored with
OCTREE = Image.Quantize.FASTOCTREE  # the default method loses colours of which there is little


def alt_text(figure: Figure) -> str:
    """A sentence or two that tell what the figure shows, with its numbers, for who can't see it."""
    return str(figure.get_label())


def save(figure: Figure, path: Path | IO[bytes]) -> None:
    """Write a PNG, 800 pixels wide, with the alt text as the file's own description."""
    about = {"Description": alt_text(figure), "Software": None}
    figure.savefig(path, format="png", dpi=DPI, metadata=about)


def png(figure: Figure) -> bytes:
    """The figure as a notebook shows it: a small PNG, the same byte for byte each time."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=SCREEN_DPI, metadata={"Software": None})
    # Notebooks carry their pictures, and are read over slow lines.
    picture = Image.open(drawn).convert("RGB")
    colours = PHOTOGRAPHS if any(axes.images for axes in figure.axes) else LINES
    picture.quantize(colours, OCTREE, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def blank(
    xlabel: str, ylabel: str, size: tuple[float, float] = (WIDTH, HEIGHT)
) -> tuple[Figure, Axes]:
    """One pair of axes without clutter, on a figure of `size` inches."""
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel, fontsize=NORMAL)
    axes.set_ylabel(ylabel, fontsize=NORMAL)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def finish(figure: Figure, axes: Axes, title: str, text: str | None = None) -> Figure:
    """Title, legend and alt text."""
    axes.set_title(title, fontsize=LARGE, loc="left", wrap=True)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        inside = axes.get_legend()  # as a prediction brings one, with room for its long dashes
        look = {"handlelength": inside.handlelength if inside else None}
        if inside:
            inside.remove()
        look |= {"ncols": len(handles), "fontsize": SMALL, "frameon": False}
        figure.legend(loc="outside lower center", **look)
    figure.set_label(text or f"{title}.")
    return figure
