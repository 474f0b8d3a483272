"""Nothing in the tests reaches another machine, and what talks on this machine works."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import refuse_network
from nbclient import NotebookClient
from refuse_network import WORDS, is_own

# Addresses that are kept for documentation: nothing answers there, and nothing is sent.
V4, V6 = ("192.0.2.1", 9), ("2001:db8::1", 9)

TRY = f"""
import socket
try:
    socket.create_connection({V4!r}, timeout=5)
except OSError as error:
    print(error)
server = socket.create_server(("127.0.0.1", 0))
with socket.create_connection(server.getsockname(), timeout=5):
    print("loopback works")
"""


def connected(family: int, address: tuple[str, int]) -> None:
    with socket.socket(family) as out:
        out.settimeout(5)
        out.connect(address)


def sent(address: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(b"", address)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: connected(socket.AF_INET, V4),
        lambda: connected(socket.AF_INET6, V6),
        lambda: sent(V4),
        lambda: socket.getaddrinfo("example.org", 443),
        lambda: socket.gethostbyname("example.org"),
        lambda: urllib.request.urlopen("http://example.org", timeout=5),
    ],
    ids=["IPv4", "IPv6", "datagram", "look-up", "old look-up", "web page"],
)
def test_this_process_is_refused(attempt: Callable[[], None]) -> None:
    with pytest.raises(OSError, match=WORDS):
        attempt()


def test_a_socket_that_reports_errors_by_number_is_refused_too() -> None:
    with socket.socket() as out, pytest.raises(OSError, match=WORDS):
        out.connect_ex(V4)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        *((name, True) for name in ("127.0.0.1", "127.9.9.9", "::1", "localhost", b"localhost")),
        *((name, True) for name in (None, "", "0.0.0.0", "::", socket.gethostname())),
        *((name, False) for name in ("192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1%eth0")),
        *((name, False) for name in ("example.org", "localhost.example.org")),
    ],
)
def test_which_addresses_are_this_machine(host: str | bytes | None, own: bool) -> None:
    assert is_own(host) == own


def test_a_process_is_refused_and_may_talk_on_this_machine() -> None:
    done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True, timeout=60)
    refused, works = done.stdout.splitlines()
    assert refused.endswith(WORDS) and works == "loopback works", done.stderr


def test_a_spawned_worker_is_refused() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(OSError, match=WORDS):
        pool.apply(connected, (socket.AF_INET, V4))


def test_a_notebooks_kernel_is_refused(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(TRY)])
    place = {"metadata": {"path": tmp_path}}
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources=place).execute()
    refused, works = notebook.cells[0].outputs[0].text.splitlines()
    assert refused.endswith(WORDS) and works == "loopback works"


def test_the_refusal_is_the_one_that_processes_read_at_their_start() -> None:
    code = "import refuse_network; print(refuse_network.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert Path(done.stdout.strip()) == Path(str(refuse_network.__file__))
