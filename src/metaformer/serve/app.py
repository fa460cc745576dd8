"""The service as an ASGI application: three verbs answered at once, the rest by FastAPI, and a key before all of it."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from metaformer.serve.bodies import Gone, Held, Receive, Send
from metaformer.serve.exchange import GONE, Exchange, Scope, refuse, refused
from metaformer.serve.jobs import Kind
from metaformer.serve.keys import Keys
from metaformer.serve.logs import Log
from metaformer.serve.metrics import CONTENT_TYPE, Metrics
from metaformer.serve.openapi import FIGURES, describe, errors
from metaformer.serve.origins import Origins
from metaformer.serve.pages import page_routes
from metaformer.serve.refusals import Refusal, quoted
from metaformer.serve.schemas import Health, Models, Readiness, ServedLimits
from metaformer.serve.settings import Limits
from metaformer.serve.verbs import Asks, ask

VERBS: dict[str, Kind] = {"/predict": "predict", "/embed": "embed", "/explain": "explain"}
OPEN = ("/", "/healthz", "/readyz")
"""What needs no key, beside the page's files."""
HELD = 16
"""How many of the largest bodies the front holds at once."""


class Service:
    """`Service(pool, limits)` is served by any ASGI server; its lifespan starts and stops the pool.

    `keys` are what a request must have one of; `origins` are pages of elsewhere that browsers let ask. Raises ValueError
    with a sentence.
    """

    def __init__(
        self,
        pool: Asks,
        limits: Limits | None = None,
        *,
        keys: Iterable[str] = (),
        origins: Iterable[str] = (),
        log: Log | None = None,
    ) -> None:
        self.pool = pool
        self.limits = limits or Limits()
        self.log = log or Log()
        self.metrics = Metrics(pool)
        self.phase = "starting"
        self.asking = 0
        """Requests for answers that were let in and are not done."""
        self._keys = Keys(keys)
        self._held = Held(HELD * self.limits.body)
        self._rest = _rest(self)
        self.origins = Origins(origins)
        self._inner = self._dispatch if not self.origins.named else CORSMiddleware(
            self._dispatch,
            allow_origins=self.origins.named,
            allow_methods=("GET", "POST"),
            allow_headers=("authorization", "content-type", "x-api-key", "x-request-id"),
            expose_headers=("x-request-id", "retry-after"),
        )  # fmt: skip

    @property
    def locked(self) -> bool:
        """Whether a request needs a key."""
        return bool(self._keys)

    @property
    def status(self) -> str:
        """ready, starting (also while a model is opened again) or draining."""
        return "starting" if self.phase == "ready" and not self.pool.ready else self.phase

    async def start(self) -> None:
        """Opens the models. Raises ValueError with the sentence of the one that cannot be opened."""
        await self.pool.start()
        if self.phase == "starting":
            self.phase = "ready"

    async def stop(self, drain: float) -> None:
        """Takes nothing new, and gives what was taken `drain` seconds."""
        self.phase = "draining"
        end = time.monotonic() + drain
        while self.asking and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await self.pool.stop(max(0.0, end - time.monotonic()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except ValueError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop(self.limits.drain)
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._held)
        try:
            await self._inner(scope, receive, exchange.send)
        except Gone:
            exchange.status = GONE
        except asyncio.CancelledError:  # the server stops, and this one took too long
            if not exchange.status:
                await refuse(exchange, exchange.send, _draining())
            raise
        finally:
            exchange.body.done()
            line = exchange.line()
            self.metrics.count(exchange.path, exchange.status, time.monotonic() - exchange.started)
            self.log.write(line)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        try:
            if not (exchange.path in OPEN or exchange.path.startswith("/page/")):
                self._let_in(exchange, scope)
            kind = VERBS.get(exchange.path)
            if kind is None:
                await self._rest(scope, receive, send)
            else:
                await self._ask(kind, scope, send)
        except Refusal as refusal:
            await refuse(exchange, send, refusal)

    def _let_in(self, exchange: Exchange, scope: Scope) -> None:
        """Raises Refusal for who has no key; where there are none, for who is no page of this machine."""
        if not self.locked:
            self.origins.check(exchange.headers)
        elif not self._keys.let_in(scope["headers"]):
            raise Refusal(401, "no_key", "send a key, as Authorization: Bearer KEY or X-API-Key: KEY")

    async def _ask(self, kind: Kind, scope: Scope, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        if exchange.method != "POST":
            raise Refusal(405, "wrong_method", f"{exchange.path} takes POST with images in its body", allow="POST")
        if self.phase == "draining":
            raise _draining()
        if self.phase == "starting":
            raise Refusal(503, "starting", "the models are being opened: send it again in a moment", retry_after=2)
        self.asking += 1
        try:
            await ask(kind, scope["query_string"], exchange, send, self.pool, self.limits)
        finally:
            self.asking -= 1

    def models(self) -> Models:
        """What `GET /models` says."""
        models = {name: asdict(model) for name, model in self.pool.models.items()}
        return Models.model_validate(
            {
                "models": [{**model, "classes": list(model["classes"])} for model in models.values()],
                "default": next(iter(models), ""),
                "limits": {name: getattr(self.limits, name) for name in ServedLimits.model_fields},
                "keys": self.locked,
                "status": self.status,
            }
        )


def _draining() -> Refusal:
    return Refusal(503, "draining", "the service stops: send it again in a moment", retry_after=5)


# --- what FastAPI answers ---------------------------------------------------------------------------------------------


def _rest(service: Service) -> FastAPI:
    """The paths that take no images, and what there is not."""
    app = FastAPI(title="metaformer", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(HTTPException, _refused)

    @app.get("/models", responses=errors(401, 403), summary="What is served", operation_id="models")
    async def models() -> Models:
        """Models, their classes and what they can do; the limits of a request."""
        return service.models()

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Whether the process is there", operation_id="healthz")
    async def healthz() -> Health:
        """Alive, whatever else."""
        return Health()

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", summary="Whether requests are answered", operation_id="readyz", responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        """503 while the models are being opened, while one is replaced, and when the service stops."""
        response.status_code = 200 if service.status == "ready" else 503
        return Readiness.model_validate({"status": service.status})

    @app.get("/metrics", responses=FIGURES | errors(401, 403), summary="Figures for Prometheus", operation_id="metrics")
    async def metrics() -> Response:
        """Requests, seconds, images that wait, batches, workers that were replaced."""
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(describe(app, service.pool.models, service.limits, keys=service.locked))

    app.include_router(page_routes())
    return app


async def _refused(request: Request, error: Any) -> Response:
    """FastAPI's own refusals, 404 and 405, in our words."""
    path, allow = quoted(request.url.path), (error.headers or {}).get("Allow", "")
    paths = (*VERBS, "/models", "/healthz", "/readyz", "/metrics", "/openapi.json")
    meant = request.url.path.rstrip("/").lower()
    near = f"did you mean {meant}?" if meant in paths else f"there are {', '.join(paths)}"
    refusal = Refusal(404, "no_path", f"there is no {path}: {near}")
    if error.status_code == 405:
        allow = "GET, HEAD" if request.url.path in OPEN else allow
        refusal = Refusal(405, "wrong_method", f"{path} takes {allow}", allow=allow)
    content, headers = refused(request.scope["exchange"], refusal)
    return Response(content, refusal.status, {name.decode(): value.decode() for name, value in headers})
