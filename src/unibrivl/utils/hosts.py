"""Names of this machine: a server that listens here alone answers to no other name.

A page of a stranger's may point its own name at 127.0.0.1 and have a browser ask on its behalf; the name it asks for
gives it away.
"""

from __future__ import annotations

import ipaddress


def without_port(host: str) -> str:
    """The host of "localhost:7860" and of "[::1]:7860"."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
