"""What every test shares: threads, no network, property-test profiles, skips without a GPU."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

from conditions import set_them

# Before torch is imported: `make test` starts one worker per core, so each keeps to one thread.
# Processes that a test starts inherit it.
set_them()

# Nor may any of them reach another machine: not this process, and no Python started from it (a
# notebook's kernel, the command line, a launcher's worker), unless it ignores PYTHONPATH.
OFFLINE = str(Path(__file__).resolve().parent / "offline")
if OFFLINE not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [OFFLINE, os.environ.get("PYTHONPATH")])
    )
sys.path.insert(0, OFFLINE)

import pytest
import refuse_network  # noqa: F401
from hypothesis import HealthCheck, settings

# `course` is deterministic: the same cases on every machine and every day. `thousands` draws new
# ones each time. A property test that needs more or fewer cases than its profile gives asks for
# a multiple: @settings(max_examples=3 * settings.default.max_examples).
_SLOW_IS_FINE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile(
    "course", max_examples=100, derandomize=True, database=None, **_SLOW_IS_FINE
)
settings.register_profile("thousands", max_examples=2000, print_blob=True, **_SLOW_IS_FINE)
settings.load_profile("course")


_RECORD = Path(__file__).resolve().parent.parent / "data" / "recorded_runs" / "notebooks.json"


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Warn after a notebook's last cell if it took twice the CPU seconds that were recorded."""
    kernel = getattr(item.parent, "kernel", None)
    if kernel is None or (nextitem is not None and nextitem.parent is item.parent):
        return
    import psutil

    recorded = json.loads(_RECORD.read_text(encoding="utf-8")).get(item.path.stem, {})
    try:
        times = psutil.Process(kernel.km.provisioner.process.pid).cpu_times()
    except (psutil.Error, AttributeError):  # the kernel died: its cells have failed anyway
        return
    seconds, limit = times.user + times.system, 2 * recorded.get("cpu_seconds", float("inf"))
    if seconds > limit:
        warnings.warn(
            f"{item.path.name} took {seconds:.0f} CPU seconds, over twice the recorded"
            f" {limit / 2:.0f}: shorten it, or record it again with `make notebooks`.",
            stacklevel=1,
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
