"""The notebooks as a learner meets them: JupyterLab in a real browser.

`pytest -m browser`, as .ci/run does; all notebooks under `make test-all`. Screenshots to be looked
at go to runs/browser/.
"""

from __future__ import annotations

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


def picture(widget: Any) -> str:
    return str(widget.locator("img").first.get_attribute("src"))


def move(page: Any, widget: Any) -> None:
    """Move the first slider of a widget by a step, or take another entry of its first menu."""
    handle, menu = widget.locator(".noUi-handle"), widget.locator("select")
    if handle.count():
        handle.first.focus()
        value = handle.first.get_attribute("aria-valuenow")
        page.keyboard.press("ArrowRight")
        if handle.first.get_attribute("aria-valuenow") == value:  # it stands at its end
            page.keyboard.press("ArrowLeft")
        return
    values = menu.first.locator("option").all_inner_texts()
    now = menu.first.evaluate("select => select.selectedIndex")
    menu.first.select_option(index=(now + 1) % len(values))


def changes(widget: Any, before: str, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if picture(widget) != before:
            return True
        time.sleep(0.2)
    return False


@pytest.mark.parametrize("name", NAMES)
def test_run_all_ends_and_every_widget_moves_its_picture(
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
        before = picture(widget)
        move(page, widget)
        assert changes(widget, before), f"the picture of {line} stays as it is"
        for size, viewport in (("laptop", LAPTOP), ("projector", PROJECTOR)):
            page.set_viewport_size(viewport)
            page.screenshot(path=SCREENSHOTS / f"{Path(name).stem}-widget{number}-{size}.png")
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
    assert "not yet" in check.locator(".jp-OutputArea").inner_text()
    notebook.write_and_run(stub, shown.solution)
    notebook.run(check)
    assert "passed" in check.locator(".jp-OutputArea").inner_text()
    assert catalogue.find("01.1").praise in check.locator(".jp-OutputArea").inner_text()


def test_interrupt_and_restart_leave_a_notebook_that_works(server: Server, page: Any) -> None:
    path = next(path for path in course.NOTEBOOKS if path.stem.startswith("01"))
    notebook = Notebook(page, server, path.name)
    first = page.locator(".jp-CodeCell").first  # by place: its text is about to change
    first.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text("import time\ntime.sleep(300)")
    page.keyboard.press("Control+Enter")
    time.sleep(3)
    notebook.interrupt()
    assert "KeyboardInterrupt" in first.locator(".jp-OutputArea").inner_text()
    notebook.restart()
    notebook.write_and_run(first, "print(6 * 7)", 60)
    assert "42" in first.locator(".jp-OutputArea").inner_text()
