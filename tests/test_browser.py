"""The notebooks as a learner meets them: JupyterLab in a real browser.

`pytest -m browser`, as .ci/run does; all notebooks under `make test-all`. Screenshots to be looked
at go to runs/browser/.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import course_notebooks as course
import pytest
from lab import CHROMIUM, LAPTOP, PATIENCE, PROJECTOR, Notebook, Server, browser, serve

pytest.importorskip("playwright", reason="needs Playwright: pip install playwright")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

QUICKEST = "00_start_here.ipynb"
REPRESENTATIVE = ("00", "01", "04", "06")
SCREENSHOTS = course.ROOT / "runs" / "browser"
NAMES = [
    pytest.param(
        path.name,
        id=path.stem,
        marks=() if path.stem[:2] in REPRESENTATIVE else pytest.mark.slow,
    )
    for path in course.NOTEBOOKS
]
SIZES = {"laptop": LAPTOP, "projector": PROJECTOR}
MOVING = ".jp-OutputArea-output .widget-vbox"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport=LAPTOP)
    page = context.new_page()
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url))
    yield page
    context.close()
    local = ("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")
    assert [url for url in outside if not url.startswith(local)] == []


def words(cell: Any) -> str:
    """What a cell has printed, wherever its lines were broken."""
    return " ".join(cell.locator(".jp-OutputArea").inner_text().split())


def picture(widget: Any) -> str:
    return str(widget.locator("img").first.get_attribute("src"))


def move(page: Any, control: Any) -> None:
    """Move a slider by a step, or take another entry of a menu."""
    if control.evaluate("element => element.tagName") != "SELECT":
        control.focus()
        value = control.get_attribute("aria-valuenow")
        page.keyboard.press("ArrowRight")
        if control.get_attribute("aria-valuenow") == value:  # it stands at its end
            page.keyboard.press("ArrowLeft")
        return
    count = control.locator("option").count()
    now = control.evaluate("select => select.selectedIndex")
    control.select_option(index=(now + 1) % count)


def changes(widget: Any, before: str, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if picture(widget) != before:
            return True
        time.sleep(0.2)
    return False


@pytest.mark.parametrize("name", NAMES)
def test_run_all_ends_and_every_control_moves_its_picture(
    name: str, server: Server, page: Any
) -> None:
    notebook = Notebook(page, server, name)
    notebook.run_all(400)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    code = [cell.source for cell in course.code_cells(course.read(server.folder / name))]
    wanted = [source for source in code if "explore(" in source]
    assert wanted or name.startswith("00")
    for number, source in enumerate(wanted):
        line = next(line for line in source.splitlines() if "explore(" in line)
        widget = notebook.cell(line.strip()[:40]).locator(MOVING).first
        widget.scroll_into_view_if_needed()
        widget.locator("img").first.wait_for(timeout=30 * PATIENCE)
        controls = widget.locator(".noUi-handle, select")
        asked = len(re.findall(r"\b(?:Slider|Choice)\(", source))
        assert controls.count() == asked or "**" in source
        for place in range(controls.count()):
            before = picture(widget)
            move(page, controls.nth(place))
            assert changes(widget, before), f"control {place} of {line} leaves the picture as it is"
        for size, viewport in SIZES.items():
            page.set_viewport_size(viewport)
            page.screenshot(path=SCREENSHOTS / f"{Path(name).stem}-widget{number}-{size}.png")
    for size, viewport in SIZES.items():
        page.set_viewport_size(viewport)
        time.sleep(1)
        assert notebook.cut_off() == [], size
    assert notebook.errors() == []


def test_exercise_answered_wrongly_and_then_rightly(server: Server, page: Any) -> None:
    """The first exercise of notebook 01, as a learner does it: wrong, then right."""
    from course_lib.lessons import catalogue

    path = next(path for path in course.NOTEBOOKS if path.stem.startswith("01"))
    shown = course.exercises(course.read(path))["01.1"]
    notebook = Notebook(page, server, path.name)
    notebook.run(notebook.cell(course.setup_source(course.read(path)).splitlines()[0][:40]), 90)
    stub = notebook.cell(shown.stub.splitlines()[0])
    check = notebook.cell('check("01.1"')
    first_line = shown.stub.splitlines()[0]
    notebook.write_and_run(stub, f"{first_line}\n    return 'nonsense'")
    notebook.run(check)
    assert "not yet" in words(check)
    notebook.write_and_run(stub, shown.solution)
    notebook.run(check)
    assert "passed" in words(check)
    assert catalogue.find("01.1").praise in words(check)


WAITING = """
import time
from course_lib.widgets import bar
for _ in bar(range(8), "waiting"):
    time.sleep(0.5)
"""


def test_a_progress_bar_moves_while_its_cell_runs(server: Server, page: Any) -> None:
    notebook = Notebook(page, server, QUICKEST)
    cell = page.locator(".jp-CodeCell").first  # by place: its text is about to change
    notebook.write(cell, WAITING)
    words, widths, end = set(), set(), time.monotonic() + 60
    output = cell.locator(".jp-OutputArea")
    while "8 of 8, 0 s left" not in words and time.monotonic() < end:
        words |= set(output.locator(".widget-label").all_inner_texts())
        bars = output.locator(".progress-bar")
        widths |= {bars.first.get_attribute("style")} if bars.count() else set()
        time.sleep(0.2)
    counted = {int(word.split()[0]) for word in words if " of 8, " in word}
    assert len(counted) >= 4 and max(counted) == 8, words
    assert len(widths) >= 4


def test_interrupt_and_restart_leave_a_notebook_that_works(server: Server, page: Any) -> None:
    """Run All is interrupted within a long cell; then, and after a restart, it goes through."""
    whole = course.setup_source(course.read(server.folder / QUICKEST))
    notebook = Notebook(page, server, QUICKEST)
    first = page.locator(".jp-CodeCell").first
    notebook.write(first, "import time\ntime.sleep(300)", run=False)
    notebook.start_all()
    time.sleep(3)
    notebook.interrupt()
    assert "KeyboardInterrupt" in first.locator(".jp-OutputArea").inner_text()
    notebook.write(first, whole, run=False)
    notebook.run_all(200)
    assert notebook.errors() == []
    notebook.restart()
    notebook.write(first, "print('images' in dir())")
    notebook.idle(60)
    assert "False" in first.locator(".jp-OutputArea").inner_text(), "the kernel is a new one"
    notebook.write(first, whole, run=False)
    notebook.run_all(200)
    assert notebook.errors() == []
