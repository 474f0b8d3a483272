"""What this machine has: packages, devices, memory. Only the standard library is imported, so that
it can be asked where nothing else works.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

# What is tried in a process of its own, since a broken package may end its process or never come
# back: import everything, use torch and torchvision together, compute on the accelerators.
PROBE = """
import importlib, json, sys
found = {"broken": {}}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except BaseException as error:
        found["broken"][name] = f"{type(error).__name__}: {error}"
if not {"torch", "torchvision"} & set(found["broken"]):
    import torch, torchvision
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:
        found["broken"]["torchvision"] = f"it doesn't fit torch: {error}"
    found["threads"] = torch.get_num_threads()
    found["devices"] = {}
    for name, there in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        if there.is_available():
            try:
                (torch.zeros(2, device=name) + 1).sum().item()
                found["devices"][name] = ""
            except Exception as error:
                found["devices"][name] = str(error) or type(error).__name__
    if found["devices"].get("cuda") == "":
        found["cuda"] = [torch.cuda.get_device_name(), *torch.cuda.mem_get_info()]
print("\\n" + json.dumps(found))
"""
SECONDS_TO_IMPORT = 180.0  # a cold start from a network drive takes minutes


def probe(names: Sequence[str], seconds: float = SECONDS_TO_IMPORT) -> dict[str, Any]:
    """What came of importing the packages in a new process.

    "broken": {package: why}; if torch and torchvision can be imported "threads", "devices": {cuda,
    mps: "" or why it doesn't compute}, and "cuda": [name, bytes free, bytes]. Or "crash": why the
    process didn't come to its end.
    """
    command = [sys.executable, "-c", PROBE, json.dumps(list(names))]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return {"crash": f"importing the packages took over {seconds:g} seconds"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        return {"crash": f"Python ended while it imported the packages ({last[0]})"}


def installed(packages: Iterable[str]) -> dict[str, str | None]:
    """Package → its version, or None where it isn't installed."""
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def lower_bounds() -> dict[str, str]:
    """Package → oldest version, from the checkout's pyproject.toml or the installed package."""
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    try:
        lines = project.read_text(encoding="utf-8").splitlines()
    except OSError:
        try:
            lines = metadata.requires("pruning-resnets") or []
        except metadata.PackageNotFoundError:
            lines = []
    found = (re.match(r'\s*"?([\w-]+)>=([\d.]+)', line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def free_memory() -> tuple[float, str] | None:
    """Bytes of memory, and whether they are "free" or "in all"; None where neither can be told."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        free = 1024.0 * int(re.search(r"MemAvailable:\s+(\d+)", text)[1])  # type: ignore[index]
    except (OSError, TypeError):
        try:  # macOS
            return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE"), "in all"
        except (AttributeError, OSError, ValueError):
            return None
    try:  # a container may be allowed less than the machine has
        allowed = float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
        return min(free, allowed), "free"
    except (OSError, ValueError):
        return free, "free"


def free_disk(folder: Path) -> float | None:
    """Bytes free on the disk of a folder, which needn't exist yet; None where it can't be told."""
    try:
        return shutil.disk_usage(nearest(folder)).free
    except OSError:
        return None


def nearest(folder: Path) -> Path:
    """The folder, or the closest one above it that exists."""
    return next((place for place in (folder, *folder.parents) if place.exists()), folder)


def python_command() -> str:
    """What to type for the Python that runs this."""
    here, found = Path(sys.executable), shutil.which("python")
    if found and os.path.abspath(found) == os.path.abspath(here):
        return "python"
    try:
        return str(here.relative_to(Path.cwd()))
    except ValueError:
        return str(here)


def quoted(command: Sequence[str]) -> str:
    """The command as one line for the platform's shell."""
    return subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)
