"""The guard in front of Dagster's and MLflow's web servers: only their own pages may command them.

Dagster OSS has no login, checks no Host header, executes GraphQL mutations sent by GET and takes materialization events
from anybody on `/report_*`. So any web page its operator visits could start runs or forge events. Here a request has to
name the server by an address it was started with (no DNS rebinding), a browser's request has to come from the server's
own page (no cross-site request), GraphQL has to be POSTed, and `/report_*` is closed: events come from runs alone.
MLflow has no such paths, but takes writes from any page served on this machine, whatever its port.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Send], Awaitable[None]]

READS = {"GET", "HEAD"}
CLOSED = "/report_"
COMMANDS = "/graphql"


class Guard:
    """An ASGI application that passes on what may pass and answers the rest with 403 and a sentence.

    Args:
        app: The application behind it.
        hosts: The values of the Host header it answers to, with their ports ("127.0.0.1:3000").
    """

    def __init__(self, app: App, *, hosts: Iterable[str]) -> None:
        self.app, self.hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Send) -> None:
        """Serve one request or one WebSocket."""
        fault = self.fault_of(scope) if scope["type"] in {"http", "websocket"} else None
        if fault is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": fault[:120]})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": f"Refused: {fault}\n".encode()})

    def fault_of(self, scope: Scope) -> str | None:
        """Why a request may not pass, None where it may."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        is_read = scope["type"] == "http" and scope["method"] in READS
        if host not in self.hosts:
            return f"the request names the host {host!r}; this server is {' or '.join(sorted(self.hosts))}."
        if origin is not None and origin not in {f"http://{host}", f"https://{host}"}:
            return f"the request comes from {origin}, not from this server's own pages."
        if not is_read and headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
            return "the request comes from another site's page."
        path = str(scope["path"])
        if path.startswith(CLOSED):
            return "events are not taken from outside; materialize the asset in a run instead."
        if is_read and path.rstrip("/") == COMMANDS and scope["query_string"]:
            return "GraphQL is answered to POST only: a GET could be sent by any page that shows a picture."
        return None
