"""How a notebook shows things: figures with a caption, measured numbers with their range."""

from __future__ import annotations

import textwrap

from IPython.display import display
from matplotlib.figure import Figure

from course_lib.errors import CourseError
from course_lib.plots.style import SCREEN_DPI, alt_text, png

COLUMNS = 72  # characters of a line: more would be broken within words on a projector


def show(figure: Figure, caption: str | None = None) -> None:
    """Show a figure and, below it, the sentences that say what it shows, with its numbers.

    The caption is printed, so that it can be read aloud, and compared when the notebook is tested,
    which pictures aren't; it is also the alt text, where the notebook is shown as a page.
    Numbers that differ from run to run have a ≈.

    Raises CourseError where there is no caption.
    """
    text = (caption or alt_text(figure)).strip()
    if not text:
        raise CourseError("A figure needs a caption: show(figure, 'What it shows, with numbers.').")
    width, height = figure.get_size_inches()
    data = {"image/png": png(figure), "text/plain": f"<figure, {width:g} by {height:g} inches>"}
    details = {"image/png": {"alt": text, "width": round(width * SCREEN_DPI)}}
    display(data, metadata=details, raw=True)
    print(textwrap.fill(f"Figure: {text}", COLUMNS, break_on_hyphens=False))


def expect(name: str, value: float, low: float, high: float, form: str = ".3f") -> None:
    """Print a measured number with the range that it lies in on the machines we know.

    Raises nothing: outside of the range the line says so, and a test of the notebook fails.
    """
    inside = low <= value <= high
    verdict = "ok" if inside else "outside: see the notes at the top"
    print(f"{name} ≈{value:{form}} (expected {low:{form}} to {high:{form}}): {verdict}")
