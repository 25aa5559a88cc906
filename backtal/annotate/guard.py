"""Who may talk to the page's server: this machine's browser, from the page itself, with the token."""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 2 << 20
PATIENCE = 30.0  # seconds until all of a request has come
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Refused(Exception):  # noqa: N818 - an answer
    """A request that goes no further, with the status and the message of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Guard:
    """ASGI middleware: refuses what does not come from the page, and adds the headers that keep the page to itself.

    A request needs this server's name as Host, no other Origin, and the token, which the first address carries and
    which is a cookie from then on. Writing needs the Origin as well, and is JSON of at most `MOST_BYTES`, which come
    within `PATIENCE`.

    Args:
        app: what answers the requests that pass.
        port: of the server.
        token: the secret.
    """

    def __init__(self, app: App, port: int, token: str) -> None:
        self.app, self.token, self.cookie = app, token, f"backtal-{port}"
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        began = False

        async def guarded(message: MutableMapping[str, Any]) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                present = {name for name, _ in message["headers"]}
                extra = _HEADERS | {"cache-control": "no-store"}
                added = [(k.encode(), v.encode()) for k, v in extra.items() if k.encode() not in present]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        try:
            if (address := self._admit(scope)) is not None:
                await _respond(guarded, 303, {}, [(b"location", address), (b"set-cookie", self._set_cookie())])
                return
            try:
                async with asyncio.timeout(PATIENCE):
                    body = await _body(scope, receive)
            except TimeoutError:
                raise Refused(408, f"a request may take {PATIENCE:g} s") from None
            await self.app(scope, body, guarded)
        except Refused as refused:
            if not began:
                await _respond(guarded, refused.status, {"error": refused.message})

    def _admit(self, scope: Scope) -> bytes | None:
        """Raise where the request is refused; where to go on, for the first address."""
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in (b"host", b"origin") and name in headers:
                raise Refused(400, f"two headers {name.decode()}")
            headers[name] = headers[name] + b"; " + value if name == b"cookie" and name in headers else value
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if host not in self.hosts:
            raise Refused(403, "this server answers on 127.0.0.1 only")
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        reads = scope["method"] in ("GET", "HEAD")
        if (origin or not reads) and origin != f"http://{host}":
            raise Refused(403, "requests from other pages are refused")
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if reads and scope["path"] == "/" and self._is_token(given):
            return b"/"
        # A first visit comes from another place, a terminal or a mail; what the page itself asks for never does.
        if headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin") and scope["path"] != "/":
            raise Refused(403, "requests from other pages are refused")
        if not self._is_token(_cookie(headers.get(b"cookie", b""), self.cookie)):
            raise Refused(403, "open the address that `backtal annotate` printed last: it holds the token")
        if not reads and headers.get(b"content-type", b"").split(b";")[0].strip() != b"application/json":
            raise Refused(415, "expected application/json")
        return None

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), self.token.encode())

    def _set_cookie(self) -> bytes:
        # Not Strict: that is held back on the way from a link in a mail or in JupyterLab, and the page would not open.
        return f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Lax".encode()


def _cookie(header: bytes, name: str) -> str:
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(header.decode("latin-1"))
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


async def _body(scope: Scope, receive: Receive) -> Receive:
    """Take in the body of a request, which is small or refused, and hand it on."""
    if scope["method"] in ("GET", "HEAD"):
        return receive
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "the request was broken off")
        size += len(message.get("body", b""))
        if size > MOST_BYTES:
            raise Refused(413, f"a request may have {MOST_BYTES} bytes")
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    pending = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

    async def again() -> MutableMapping[str, Any]:
        return pending.pop() if pending else await receive()

    return again


async def _respond(send: Send, status: int, content: dict, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    body = json.dumps(content).encode() if content else b""
    kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*kind, *(headers or [])]})
    await send({"type": "http.response.body", "body": body})
