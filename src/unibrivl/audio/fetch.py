"""Bytes from an http(s) address, for callers who said so: bounded in size and time, and never led elsewhere.

Only http and https are spoken, also after a redirect, so an address cannot end at a local file. Which hosts may be
asked is the caller's decision: `allow_url=True` on addresses from strangers lets them probe your network.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request

from unibrivl.audio.errors import AudioError, printable

TIMEOUT_S = 30.0  # for the connection and for every wait on it
DEADLINE_S = 600.0  # for the whole download, however slowly it drips
_PIECE_BYTES = 1 << 18


def fetch(url: str, max_bytes: int) -> bytes:
    """The body at `url`, or an `AudioError`; no more than `max_bytes` are read."""
    name = url_name(url)
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise AudioError("an address with a user or password is not taken; fetch it yourself and pass the bytes", name)
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPRedirectHandler,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    started = time.monotonic()
    pieces: list[bytes] = []
    num_bytes = 0
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "unibrivl"})
        with opener.open(request, timeout=TIMEOUT_S) as response:
            while piece := response.read1(_PIECE_BYTES):
                pieces.append(piece)
                num_bytes += len(piece)
                if num_bytes > max_bytes:
                    raise AudioError(f"it sends more than {max_bytes} bytes; raise max_bytes to take it", name)
                if time.monotonic() - started > DEADLINE_S:
                    raise AudioError(f"it took longer than {DEADLINE_S:.0f} s; download it first", name)
            expected = response.headers.get("Content-Length", "")
    except AudioError:  # a ValueError too
        raise
    except (http.client.InvalidURL, ValueError) as error:
        raise AudioError("it is not a valid address", name) from error  # the error itself repeats all of it
    except (OSError, http.client.HTTPException) as error:  # a URLError is an OSError
        raise AudioError(f"it could not be fetched: {error}", name) from error
    if expected.isdigit() and num_bytes < int(expected):
        raise AudioError(f"the connection ended after {num_bytes} of {expected} bytes; try again", name)
    return b"".join(pieces)


def url_name(url: str) -> str:
    """The address for a message, without user, password and query, where secrets travel."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "the address"
    return printable(f"{parts.scheme}://{host}{parts.path}")
