"""JupyterLab with the notebooks, driven by a real browser: what the browser tests stand on."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_notebooks import ROOT

LAPTOP, PROJECTOR = {"width": 1366, "height": 768}, {"width": 1024, "height": 768}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 1000  # milliseconds in a second; Playwright counts in them
# JupyterLab's own pop-ups about news would lie over what is to be clicked.
QUIET = {"fetchNews": "false", "checkForUpdates": False}


# Every cell is drawn, in sight or not: what isn't drawn can't be measured.
TRACKER = {"windowingMode": "none"}
WIDER = """() => {
  const right = element => element.getBoundingClientRect().right;
  const wider = one => one.tagName === "IMG"
    ? right(one) > right(one.closest(".jp-OutputArea")) + 2
    : one.scrollWidth > one.clientWidth + 2;
  const places = ".jp-OutputArea-output, .jp-MarkdownOutput, .jp-OutputArea-output img";
  return [...document.querySelectorAll(places)].filter(wider)
    .map(one => (one.innerText || one.alt || one.tagName).slice(0, 80));
}"""


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: its address on this machine, its token, the folder it serves."""

    port: int
    token: str
    folder: Path

    def url(self, path: str, query: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/{path}?token={self.token}{query}"

    def idle(self) -> bool:
        """Does no kernel compute?"""
        with urllib.request.urlopen(self.url("api/kernels"), timeout=10) as answer:
            return all(kernel["execution_state"] == "idle" for kernel in json.load(answer))


@contextlib.contextmanager
def serve(home: Path) -> Iterator[Server]:
    """JupyterLab on a copy of the notebooks, with settings of its own below `home`."""
    folder = home / "course" / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".*", "*.json"))
    for beside in ("data/recorded_runs", "data/small", "starter"):  # what notebooks read
        shutil.copytree(ROOT / beside, home / "course" / beside)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(port, secrets.token_hex(16), folder)
    environment = {
        **os.environ,
        **{
            f"JUPYTER{name}_DIR": str(home / name.lower())
            for name in ("_CONFIG", "_DATA", "_RUNTIME", "LAB_SETTINGS", "LAB_WORKSPACES")
        },
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    choices = {"apputils-extension/notification": QUIET, "notebook-extension/tracker": TRACKER}
    for name, values in choices.items():
        file = home / "lab_settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += [
        f"--port={port}",
        f"--IdentityProvider.token={server.token}",
        f"--notebook-dir={folder}",
    ]
    log = (home / "jupyter.log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        _wait_for(server, process)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def _wait_for(server: Server, process: subprocess.Popen[bytes], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(server.url("api/status"), timeout=5)
            return
        time.sleep(0.3)
    raise RuntimeError("JupyterLab did not start")


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


class Notebook:
    """A notebook open in JupyterLab."""

    def __init__(self, page: Any, server: Server, name: str) -> None:
        self.page, self.server, self.name = page, server, name
        page.goto(server.url(f"lab/tree/{name}", "&reset"))
        page.locator(".jp-Notebook").wait_for(timeout=90 * PATIENCE)
        self.idle(90)

    def run_all(self, seconds: float) -> None:
        """Run → Run All Cells, and wait for the end."""
        self.start_all()
        time.sleep(1)
        self.idle(seconds)

    def start_all(self) -> None:
        """Run → Run All Cells."""
        self._menu("Run", "Run All Cells")

    def interrupt(self) -> None:
        """Kernel → Interrupt Kernel."""
        self._menu("Kernel", "Interrupt Kernel")
        self.idle(60)

    def restart(self) -> None:
        """Kernel → Restart Kernel…"""
        self._menu("Kernel", "Restart Kernel…")
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
        time.sleep(1)
        self.idle(60)

    def cell(self, text: str) -> Any:
        """The first code cell whose source has this text."""
        cells = self.page.locator(".jp-CodeCell")
        for _ in range(200):  # cells that aren't in sight may not be drawn yet
            found = cells.filter(has_text=text)
            if found.count():
                found.first.scroll_into_view_if_needed()
                return found.first
            self.page.mouse.wheel(0, 600)
            time.sleep(0.05)
        raise AssertionError(f"no cell has {text!r}")

    def write(self, cell: Any, source: str, run: bool = True) -> None:
        """Replace a cell's source, and start it unless told otherwise."""
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Control+Enter" if run else "Escape")

    def write_and_run(self, cell: Any, source: str, seconds: float = 60) -> None:
        """Replace a cell's source, run it, and wait for the end."""
        self.write(cell, source)
        time.sleep(0.5)
        self.idle(seconds)

    def run(self, cell: Any, seconds: float = 60) -> None:
        """Run a cell as it stands."""
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        time.sleep(0.5)
        self.idle(seconds)

    def errors(self) -> list[str]:
        """Tracebacks and widgets' failures, in the saved file: what is out of sight isn't drawn."""
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Control+S")
        time.sleep(2)
        saved = json.loads((self.server.folder / self.name).read_text(encoding="utf-8"))
        outputs = [out for cell in saved["cells"] for out in cell.get("outputs", [])]
        found = [out["ename"] for out in outputs if out["output_type"] == "error"]
        states = saved["metadata"].get("widgets", {})
        return found + [line for line in json.dumps(states).split('"') if "Error: " in line]

    def cut_off(self) -> list[str]:
        """Pictures, outputs and texts that are wider than their place in the window."""
        return list(self.page.evaluate(WIDER))

    def _menu(self, menu: str, entry: str) -> None:
        self.page.get_by_role("menuitem", name=menu, exact=True).first.click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text(entry, exact=True).first.click()

    def idle(self, seconds: float) -> None:
        """Wait until nothing is computed or waits for it. Raises AssertionError after `seconds`."""
        end, times = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            bar = self.page.locator("#jp-main-statusbar")
            waiting = self.page.locator(".jp-InputPrompt").filter(has_text="[*]").count()
            idle = "| Idle" in bar.inner_text() and not waiting and self.server.idle()
            times = times + 1 if idle else 0
            if times == 4:  # between two cells a kernel is idle for a moment
                return
            time.sleep(0.4)
        raise AssertionError(f"{self.name} was not idle after {seconds:.0f} s")
