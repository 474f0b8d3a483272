"""Colours that can be told apart and read, headings in order, alt text: what nothing else tests.

Notebooks' headings, captions and alt text: test_notebooks.py; the report's: test_page.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import is_color_like, to_rgb
from test_repository import DOCUMENTS

from course_lib import markup, page
from course_lib.plots import style
from course_lib.plots.criteria import agreement_figure

ROOT = Path(__file__).resolve().parent.parent
PLOTS = [*sorted((ROOT / "course_lib" / "plots").glob("*.py")), ROOT / "course_lib" / "pictures.py"]
NAMES = ("BLUE", "ORANGE", "RED", "SKY", "PURPLE", "BLACK")
PALETTE = {name: getattr(style, name) for name in NAMES}
# Below 3 : 1 on white, so they never stand alone: a marker, dashes, a hatch, an outline or words
# are beside them wherever they are used.
LIGHT = {"ORANGE", "SKY"}
TEXT, LARGE_TEXT, MARKS = 4.5, 3.0, 3.0  # Web Content Accessibility Guidelines 2.2, level AA
# In CIELAB, where 2.3 is about the least difference that is seen between two patches side by side;
# thin lines and small marks far apart need several times that. The nearest two of the palette,
# orange and red in deuteranopia, are 18 apart, and differ in lightness too.
FLOOR = 15.0

# Machado, Oliveira and Fernandes 2009, "A Physiologically-based Model for Simulation of Color
# Vision Deficiency", severity 1.0, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def linear(colour: str | tuple[float, ...]) -> np.ndarray:
    """sRGB to light."""
    values = np.array(to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def luminance(colour: str | tuple[float, ...]) -> float:
    return float(XYZ[1] @ linear(colour))


def contrast(one: str | tuple[float, ...], other: str | tuple[float, ...]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def lab(light: np.ndarray) -> np.ndarray:
    ratio = XYZ @ light / (XYZ @ np.ones(3))
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def seen(colour: str, sight: str) -> np.ndarray:
    """The colour in CIELAB, as somebody with that sight sees it."""
    return lab(np.clip(np.array(SIGHT[sight]) @ linear(colour), 0, 1))


def test_the_measures_give_known_values() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert seen("#ffffff", "normal") == pytest.approx([100, 0, 0], abs=0.01)
    assert seen("#ff0000", "normal") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    for sight in SIGHT:  # grey is grey to everybody
        assert seen("#808080", sight)[1:] == pytest.approx([0, 0], abs=0.1)
    red, green = (seen(colour, "deuteranopia") for colour in ("#d40000", "#6a6a00"))
    assert np.linalg.norm(red - green) < FLOOR  # a pair that is confused


# ---- figures


@pytest.mark.parametrize("sight", SIGHT)
def test_the_palette_is_told_apart(sight: str) -> None:
    distances = {
        (one, other): float(np.linalg.norm(seen(PALETTE[one], sight) - seen(PALETTE[other], sight)))
        for one, other in combinations(PALETTE, 2)
    }
    assert {pair: far for pair, far in distances.items() if far < FLOOR} == {}


def test_which_colours_are_too_light_to_stand_alone() -> None:
    light = {name for name, colour in PALETTE.items() if contrast(colour, "white") < MARKS}
    assert light == LIGHT


def nodes(tree: ast.AST, around: tuple[ast.AST, ...] = ()) -> Iterator[tuple[ast.AST, tuple]]:
    """Every node with those around it, the innermost first."""
    yield tree, around
    for child in ast.iter_child_nodes(tree):
        yield from nodes(child, (tree, *around))


BESIDE = {"marker", "ls", "linestyle", "hatch", "edgecolor", "ec", "mec"}
MARKERS_AND_DASHES = set("osD^vXP*.") | {"-", "--", ":", "-."}
# Light fills with words inside, beside, or a mark of the darker colours over them.
FILLS = {
    ("residual_blocks", "draw_network"): "boxes with an outline; their sizes stand inside",
    ("neural_networks", "draw_regions"): "a region; the points in it have two shapes and colours",
    ("pictures", "widths_figure"): "bars in the outline of the full network, with their numbers",
}


def stands_alone(around: tuple[ast.AST, ...]) -> bool:
    """Is there neither marker nor dashes, hatch or outline in the call or table around a colour?"""
    for node in around:
        if isinstance(node, ast.stmt):
            return True
        for inner in ast.walk(node):
            if isinstance(inner, ast.keyword) and inner.arg in BESIDE:
                return False
            if isinstance(inner, ast.Constant) and inner.value in BESIDE | MARKERS_AND_DASHES:
                return False
            if isinstance(inner, ast.JoinedStr | ast.IfExp) and "dashed" in ast.unparse(inner):
                return False
    return True


def alone(path: Path) -> set[tuple[str, str]]:
    """Functions that use a light colour with nothing beside it."""
    found = set()
    for node, around in nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and node.id in LIGHT and isinstance(node.ctx, ast.Load):
            functions = [outer.name for outer in around if isinstance(outer, ast.FunctionDef)]
            if stands_alone(around):
                found.add((path.stem, functions[0] if functions else ""))
    return found


def test_light_colours_have_something_beside_them() -> None:
    assert set().union(*map(alone, PLOTS)) == set(FILLS)


def words(tree: ast.AST) -> Iterator[tuple[ast.AST, float, bool]]:
    """Colours of text: the expression, and the size of the text and whether it is bold."""
    for node in ast.walk(tree):
        name = getattr(getattr(node, "func", None), "attr", "")
        if isinstance(node, ast.Call) and name in {"text", "annotate", "set_title", "suptitle"}:
            given = {item.arg: item.value for item in node.keywords}
            size = getattr(given.get("fontsize"), "value", style.NORMAL)
            if "color" in given:
                yield given["color"], size, "weight" in given


def colours(expression: ast.AST, tree: ast.AST) -> set[str]:
    """Every colour that an expression may be, through one assignment at most."""
    names = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
    sources = [expression] + [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and names & set(re.findall(r"\w+", _targets(node)))
    ]
    parts = [part for source in sources for part in ast.walk(source)]
    found = {
        PALETTE[part.id] for part in parts if isinstance(part, ast.Name) and part.id in PALETTE
    }
    constants = {part.value for part in parts if isinstance(part, ast.Constant)}
    return found | {value for value in constants if isinstance(value, str) and is_color_like(value)}


def _targets(node: ast.Assign) -> str:
    return " ".join(map(ast.unparse, node.targets))


@pytest.mark.parametrize("path", PLOTS, ids=lambda path: path.stem)
def test_text_in_figures_can_be_read(path: Path) -> None:
    """On white; white itself is for shades: the next test."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for expression, size, bold in words(function):
            least = LARGE_TEXT if bold and size >= 14 else TEXT
            for colour in colours(expression, function) - {"white"}:
                assert contrast(colour, "white") >= least, f"{ast.unparse(expression)}: {colour}"


def test_numbers_can_be_read_on_their_shades() -> None:
    values = np.linspace(0, 1, 201)[:, None]
    (axes,) = agreement_figure([""] * len(values), values).axes
    shades = colormaps["Blues"](values[:, 0])[:, :3]
    for text, shade in zip(axes.texts, shades, strict=True):
        assert contrast(text.get_color(), tuple(shade)) >= TEXT, text.get_text()


# ---- the report


def schemes() -> dict[str, dict[str, str]]:
    """The report's colours by name, in light, dark and print."""
    blocks = re.findall(r":root \{([^}]*)\}", markup.STYLE)
    found = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in blocks]
    return dict(zip(("light", "dark", "print"), found, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_the_report_can_be_read(scheme: str) -> None:
    colour = schemes()[scheme]
    for words in ("text", "muted"):
        for ground in ("page", "card"):
            assert contrast(colour[words], colour[ground]) >= TEXT, (words, ground)
    assert contrast(colour["accent"], colour["page"]) >= MARKS  # the frame that shows the focus
    for fill in re.findall(r"rgb\((\d+) (\d+) (\d+) / var\(--shade", markup.STYLE):
        over = np.array(list(map(int, fill))) / 255
        mixed = page.DARKEST * over + (1 - page.DARKEST) * np.array(to_rgb(colour["page"]))
        assert contrast(colour["text"], tuple(mixed)) >= TEXT, fill


# ---- documents


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_documents_have_headings_in_order_and_alt_text(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.DOTALL)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert [alt for alt in re.findall(r"!\[([^\]]*)\]\(", text) if len(alt.split()) < 5] == []
