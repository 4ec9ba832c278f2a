"""The OpenAPI document: what routes declare, with everything that they share, and with this deployment's own limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from coterie import __version__
from coterie.serving import examples, schemas
from coterie.serving.config import ServeConfig
from coterie.serving.problems import PROBLEM
from coterie.serving.words import Scope

JSON, REFERENCE = "application/json", "#/components/schemas/{model}"
SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, made by `coterie keys create`: `Authorization: Bearer csk_...`. Publishable keys "
        "(`cpk_...`) go into pages of their origins, for the scopes recommend, events and model.",
    },
    "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "The same key."},
}
ABOUT = """Recommendations from models that were trained across organisations, and what shops tell back.

Times carry their offset (RFC 3339) and come back in UTC. Every error is a problem (RFC 9457): `detail` says what was
wrong and what helps. Fields that are not known are refused. On loopback no key is asked for until the first is made.
"""
TAGS = {
    "recommend": "What completes a basket, what a user takes next, what is like an item, what is popular.",
    "items": "What the shop says of its items: live at once in all answers.",
    "events": "What happened in the shop; kept in this deployment.",
    "users": "Access, erasure, consent, and tokens with which a page speaks for a user.",
    "model": "What answers, who signed it, and what it promises.",
    "health": "For load balancers and Prometheus.",
}
REFUSALS = {
    400: "The body is no JSON, or an expression in it has a fault",
    401: "No API key, or one that does not hold",
    403: "This key may not do that",
    404: "There is none",
    408: "The body did not arrive in time",
    409: "What is asked does not go with what is served",
    413: "More than this deployment takes in one request",
    415: "The body is not declared as JSON",
    421: "The service does not answer under this host name",
    422: "The request is not what is asked for; `errors` says where",
    429: "Too many requests; Retry-After says when to come again",
    500: "A fault of the service; its log has more under the reference",
    503: "The service cannot do this just now",
}
ALWAYS = (400, 401, 403, 421, 422, 429, 500, 503)
WITH_BODY = (408, 413, 415)
HEADERS = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
GIVEN = (
    *(schemas.BasketQuestion, schemas.UserQuestion, schemas.SimilarQuestion, schemas.PopularQuestion),
    *(schemas.ItemFields, schemas.ItemsIn, schemas.EventIn, schemas.EventsIn, schemas.ConsentIn),
)
TAKEN = (
    *(schemas.Recommendations, schemas.ItemOut, schemas.ItemsPage, schemas.ItemsDone, schemas.EventsDone),
    *(schemas.UserExport, schemas.ErasureOut, schemas.ConsentOut, schemas.TokenOut, schemas.ModelsOut),
    *(schemas.Status, schemas.Problem),
)


def operation(
    summary: str,
    *,
    scope: Scope | None,
    body: Mapping[str, Any] | None = None,
    answers: Mapping[int, dict[str, Any]],
    refusals: Iterable[int] = (),
    about: str = "",
) -> dict[str, Any]:
    """How a route is declared to FastAPI: its arguments besides the path.

    Args:
        summary: one line.
        scope: of the key that it asks for; None: it is open to everybody.
        body: from `takes`.
        answers: by status, from `gives`.
        refusals: statuses besides those that every route may answer.
        about: Markdown.
    """
    refused = sorted({*refusals, *(ALWAYS if scope else (421, 500)), *(WITH_BODY if body else ())})
    told: dict[str, Any] = {} if body is None else {"requestBody": body}
    told["security"] = [{name: [scope]} for name in SCHEMES] if scope else []
    asks = f"Scope: `{scope}`." if scope else "No key is asked for."
    return {
        "summary": summary,
        "description": f"{about}\n\n{asks}".strip(),
        "responses": {**answers, **{status: _refusal(status) for status in refused}},
        "openapi_extra": told,
    }


def takes(shown: Mapping[str, Any], *models: type[BaseModel]) -> dict[str, Any]:
    """A body in JSON: one of `models`, with examples out of `coterie.serving.examples`."""
    return {"required": True, "content": {JSON: _content(shown, *models)}}


def gives(about: str, shown: Mapping[str, Any], *models: type[BaseModel], media: str = JSON) -> dict[str, Any]:
    """An answer: its model (none: text), with examples out of `coterie.serving.examples`."""
    return {"description": about, "content": {media: _content(shown, *models)}}


def describe(app: FastAPI) -> None:
    """Make `app` describe itself in OpenAPI 3.1. Its ``state.deployment`` says which limits hold."""
    app.title, app.version, app.description = "Coterie", __version__, ABOUT
    app.openapi_tags = [{"name": name, "description": about} for name, about in TAGS.items()]

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI's documentation says it is to be done


def _document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    limited = _limits(_components(), app.state.deployment.config)
    # Examples are referred to: what FastAPI writes loses every null.
    made["components"] = {"schemas": limited, "examples": examples.components(), "securitySchemes": SCHEMES}
    made["servers"] = [{"url": app.state.deployment.config.server.public_url or "/"}]
    for methods in made["paths"].values():
        for described in methods.values():
            described["security"] = [one for one in described.get("security", ()) if set(one) <= set(SCHEMES)]
            for parameter in described.get("parameters", ()):
                parameter["schema"].pop("title", None)
    return made


def _components() -> dict[str, Any]:
    """JSON Schemas of all bodies and answers, by name."""
    models: list[tuple[type[BaseModel], Any]] = [(one, "validation") for one in GIVEN]
    models += [(one, "serialization") for one in TAKEN]
    _, found = models_json_schema(models, by_alias=True, ref_template=REFERENCE)
    schemas_found: dict[str, Any] = found["$defs"]
    return schemas_found


def _limits(found: dict[str, Any], config: ServeConfig) -> dict[str, Any]:
    """The schemas with the limits that this deployment has set."""
    for name in ("BasketQuestion", "UserQuestion", "SimilarQuestion", "PopularQuestion"):
        fields = found[name]["properties"]
        fields["k"]["maximum"] = config.answers.max_k
        if "items" in fields:
            fields["items"]["maxItems"] = config.answers.max_basket
    found["EventsIn"]["properties"]["events"]["maxItems"] = config.access.batch
    for field in found["ItemsIn"]["properties"].values():
        field["maxItems"] = config.access.batch
    return found


def _content(shown: Mapping[str, Any], *models: type[BaseModel]) -> dict[str, Any]:
    told: dict[str, Any] = {"examples": examples.references(shown)}
    if not models:
        return {"schema": {"type": "string"}, **told}
    found = [{"$ref": REFERENCE.format(model=one.__name__)} for one in models]
    return {"schema": found[0] if len(found) == 1 else {"anyOf": found}, **told}


def _refusal(status: int) -> dict[str, Any]:
    problem = _content(examples.PROBLEMS, schemas.Problem)
    problem["examples"] = {"problem": problem["examples"][str(status)]}
    told: dict[str, Any] = {"description": REFUSALS[status], "content": {PROBLEM: problem}}
    if status in HEADERS:
        told["headers"] = {HEADERS[status]: {"schema": {"type": "string"}}}
    return told
