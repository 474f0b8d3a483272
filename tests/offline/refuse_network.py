"""Importing this refuses the process every connection that would leave the machine.

An audit hook sees what Python's sockets do, whichever library uses them, and can't be removed
again. Connections that C++ opens by itself (PyTorch's between its workers) go past it.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from typing import Any

CONNECTING = ("socket.connect", "socket.sendto", "socket.sendmsg")
LOOKING_UP = ("socket.getaddrinfo", "socket.gethostbyname")
WORDS = "the tests refuse connections to other machines"
OWN = {"localhost", socket.gethostname()}


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Raises an OSError, as a machine without a network does."""
    if event in CONNECTING:
        connection, address = arguments
        inside = connection.family not in (socket.AF_INET, socket.AF_INET6)
        if not inside and address is not None and not is_own(address[0]):
            raise OSError(errno.ENETUNREACH, f"{address[0]}: {WORDS}")
    elif event in LOOKING_UP and not is_own(arguments[0]):
        raise socket.gaierror(socket.EAI_NONAME, f"{arguments[0]}: {WORDS}")


def is_own(host: str | bytes | None) -> bool:
    """Is it this machine, on which servers and workers of the tests listen?"""
    name = host.decode() if isinstance(host, bytes) else host or "localhost"
    try:
        found = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name.casefold() in OWN
    return found.is_loopback or found.is_unspecified


sys.addaudithook(refuse)
