"""What the server refuses, in front of Gradio: strangers' names for it, and being used to fetch addresses.

And what it tells the browser: nothing on the page may be loaded from, or sent to, another host.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from unibrivl.utils.hosts import is_loopback, without_port

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",  # Gradio's page begins with scripts in line
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
}
FETCHING = ("file=http:", "file=https:", "proxy=")  # routes of Gradio's that fetch an address for the caller


class Guard:
    """An ASGI middleware.

    Args:
        app: what is guarded.
        host (`str`): the address the server listens on. On loopback a request must name it by a name of this machine:
            a page of a stranger's that points its own name here is refused.
    """

    def __init__(self, app: Any, host: str = "127.0.0.1") -> None:
        self.app = app
        self.only_local = is_loopback(host)

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        names = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if self.only_local and not (len(names) == 1 and is_loopback(without_port(names[0]))):
            await refuse(send, 421, b"This server answers to localhost only.")
            return
        path = unquote(scope["path"]).lower().replace(" ", "")
        if any(route in path for route in FETCHING):
            await refuse(send, 403, b"This server fetches no addresses.")
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.encode(): value.encode() for name, value in HEADERS.items()}
                kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in own]
                message = {**message, "headers": [*kept, *own.items()]}
            await send(message)

        await self.app(scope, receive, with_headers)


async def refuse(send: Send, status: int, words: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(words)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words})


__all__ = ["Guard", "is_loopback"]
