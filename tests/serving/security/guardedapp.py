"""What the security tests share: a small deployment, an application behind `protect`, and raw ASGI requests to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from coterie.serving.config import ServeConfig
from coterie.serving.security.access import Caller, require
from coterie.serving.security.keys import Keyring, make_key
from coterie.serving.security.middleware import Envelope, protect
from coterie.serving.security.refusals import Denied, denied
from coterie.serving.security.sessions import sign_in
from coterie.serving.words import ApiKey

SHOP = "https://shop.example.org"
HOST = "127.0.0.1:8080"


class Store:
    """Keys and a secret, in memory."""

    def __init__(self) -> None:
        self.secret = bytes(range(32))
        self.held: dict[str, ApiKey] = {}

    def keys(self) -> list[ApiKey]:
        return list(self.held.values())

    def add_key(self, key: ApiKey) -> None:
        self.held[key.id] = key

    def revoke_key(self, id: str, at: int) -> None:
        self.held[id] = replace(self.held[id], revoked_at=at)


@dataclass
class Counts:
    """The metrics that were told."""

    requests: list[tuple[str, str, int]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.requests.append((route, method, status))

    def refused(self, reason: str) -> None:
        self.refusals.append(reason)


class Deployed:
    """A deployment as the layers see it."""

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        self.config = ServeConfig.model_validate({"log": {"requests": False}, **(config or {})})
        self.store = Store()
        self.metrics = Counts()
        self.keys = Keyring(self.store)

    @property
    def open_access(self) -> bool:
        return self.keys.open_access(self.config)

    def key(self, *scopes: str, publishable: bool = False, origins: Sequence[str] = (SHOP,), name: str = "k") -> str:
        made, text = make_key(name, publishable, scopes, origins if publishable else ())
        self.store.add_key(made)
        self.keys.reload()
        return text


@dataclass(frozen=True)
class Reply:
    status: int
    raw: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        names = [name for name, _ in self.raw]
        assert len(names) == len(set(names)), f"a header twice: {names}"
        return {name.decode(): value.decode() for name, value in self.raw}

    @property
    def problem(self) -> str:
        """The sentence of a problem."""
        assert self.headers["content-type"] == "application/problem+json"
        content = json.loads(self.body)
        assert content["status"] == self.status
        return content["detail"]


def ask(
    app: Any,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes | Sequence[bytes] | None = None,
    key: str | None = None,
    client: str | None = "192.0.2.7",
    scheme: str = "http",
    host: str | None = HOST,
) -> Reply:
    """Send one request; a body that is a sequence comes in chunks, without a Content-Length."""
    given = [*(headers.items() if isinstance(headers, Mapping) else headers)]
    given += [("host", host)] if host is not None else []
    given += [("authorization", f"Bearer {key}")] if key is not None else []
    if isinstance(body, bytes):
        given.append(("content-length", str(len(body))))
    elif body is not None:
        given.append(("transfer-encoding", "chunked"))
    if body is not None and "content-type" not in [name.lower() for name, _ in given]:
        given.append(("content-type", "application/json"))
    parts = [body] if isinstance(body, bytes) else list(body or [b""])
    messages = [{"type": "http.request", "body": part, "more_body": n < len(parts) - 1} for n, part in enumerate(parts)]
    return asyncio.run(exchanged(app, scope_of(path, method, given, client, scheme), messages))


def scope_of(
    path: str, method: str, headers: Iterable[tuple[str, str]], client: str | None = None, scheme: str = "http"
) -> dict[str, Any]:
    plain, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": plain,
        "raw_path": plain.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": (client, 50000) if client else None,
        "server": ("127.0.0.1", 8080),
    }


async def exchanged(app: Any, scope: dict[str, Any], messages: list[dict[str, Any]]) -> Reply:
    coming, sent = iter(messages), []

    async def receive() -> dict[str, Any]:
        return next(coming, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        return Reply(0, (), b"")
    start, *rest = sent
    assert start["type"] == "http.response.start"
    return Reply(start["status"], tuple(start["headers"]), b"".join(one.get("body", b"") for one in rest))


def guarded(config: Mapping[str, Any] | None = None, **options: Any) -> tuple[Deployed, Envelope]:
    """A deployment, and the application of these tests behind `protect`."""
    deployed = Deployed(config)
    return deployed, protect(application(deployed), deployed, **options)


def application(deployment: Deployed) -> FastAPI:  # noqa: C901 - a list of small routes
    """Routes as the real ones are: some need a scope, one fails, one is open."""
    app = FastAPI(docs_url=None, redoc_url=None)
    app.add_exception_handler(Denied, denied)
    routes = APIRouter()

    def needs(scope: Any) -> Any:
        return Depends(require(deployment, scope))

    @routes.get("/health/live")
    def live() -> str:
        return "alive"

    @routes.post("/v1/recommend/basket")
    async def basket(request: Request, caller: Annotated[Caller, needs("recommend")]) -> dict[str, Any]:
        content = json.loads(await request.body())
        return {"caller": caller.key_id, "items": len(content.get("items", ()))}

    @routes.get("/v1/items/{item_id}")
    def item(item_id: str, caller: Annotated[Caller, needs("items")]) -> str:
        return item_id

    @routes.delete("/v1/users/{user_id}")
    def erase(user_id: str, caller: Annotated[Caller, needs("users")]) -> str:
        return user_id

    @routes.get("/v1/fails/{user_id}")
    def fails(user_id: str, caller: Annotated[Caller, needs("recommend")]) -> str:
        raise KeyError(user_id)

    @routes.get("/v1/cached")
    def cached(caller: Annotated[Caller, needs("model")]) -> Response:
        return PlainTextResponse("m", headers={"Cache-Control": "max-age=60", "Content-Security-Policy": "sandbox"})

    @routes.get("/metrics")
    def metrics(caller: Annotated[Caller, needs("dashboard")]) -> str:
        return "metrics"

    @routes.get("/dashboard")
    def dashboard(caller: Annotated[Caller, needs("dashboard")]) -> str:
        return caller.name

    @routes.post("/dashboard/change")
    def change(caller: Annotated[Caller, needs("admin")]) -> str:
        return caller.name

    @routes.get("/v1/streams")
    async def streams(caller: Annotated[Caller, needs("model")]) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            raise KeyError("user-4711")

        return StreamingResponse(parts())

    @routes.post("/dashboard/login")
    async def login(request: Request) -> Response:
        return Response(
            status_code=303, headers={"Set-Cookie": sign_in(deployment, request, (await request.body()).decode())}
        )

    app.include_router(routes)
    return app
