"""API: every endpoint of this deployment, with a command line to try it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from coterie.serving.dashboard.markdown import to_html
from coterie.serving.dashboard.pages import Pages

METHODS = ("get", "post", "put", "patch", "delete")
MOST_IN_A_LINE = 72


def add_to(routes: APIRouter, pages: Pages) -> None:
    """Add the page."""

    @routes.get("/dashboard/api")
    def api(request: Request) -> HTMLResponse:
        base = pages.deployment.config.server.public_url or str(request.base_url)
        key = not pages.deployment.open_access
        groups = grouped(request.app.openapi(), base.rstrip("/"), key=key)
        return pages.page(request, "api.html.j2", groups=groups, key=key, base=base.rstrip("/"))


def grouped(document: Mapping[str, Any], base: str, *, key: bool) -> dict[str, list[dict[str, Any]]]:
    """The endpoints of an OpenAPI document by their tag, each with a curl line."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in (document.get("paths") or {}).items():
        for method in METHODS:
            if (one := operations.get(method)) is not None:
                tag = str((one.get("tags") or ["other"])[0])
                groups.setdefault(tag, []).append(_endpoint(document, base, path, method, one, key=key))
    return groups


def _endpoint(
    document: Mapping[str, Any], base: str, path: str, method: str, one: Mapping[str, Any], *, key: bool
) -> dict[str, Any]:
    body = _example_body(document, one)
    guarded = one.get("security", document.get("security")) not in (None, [])
    return {
        "method": method.upper(),
        "path": path,
        "summary": one.get("summary") or "",
        "about": to_html(str(one.get("description") or ""), lower_by=3),
        "curl": curl(base + _filled(document, path, one), method, body, key=key and guarded),
        "guarded": guarded,
    }


def curl(url: str, method: str, body: Any, *, key: bool) -> str:
    """A command line that a shell takes as it stands."""
    parts = ["curl"] if method == "get" else ["curl", "-X", method.upper()]
    parts.append(shlex.quote(url))
    lines = [" ".join(parts)]
    if key:
        lines.append('-H "Authorization: Bearer $COTERIE_KEY"')
    if body is not None:
        text = json.dumps(body, ensure_ascii=False)
        text = text if len(text) <= MOST_IN_A_LINE else json.dumps(body, ensure_ascii=False, indent=2)
        lines += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(text)}"]
    return " \\\n  ".join(lines)


def _filled(document: Mapping[str, Any], path: str, one: Mapping[str, Any]) -> str:
    """The path with an example in the place of each of its parameters."""
    for parameter in one.get("parameters") or []:
        if parameter.get("in") == "path":
            example = next(_examples(document, parameter), None) or next(
                _examples(document, parameter.get("schema") or {}), None
            )
            path = path.replace("{" + parameter["name"] + "}", str(example or parameter["name"].upper()))
    return path


def _example_body(document: Mapping[str, Any], one: Mapping[str, Any]) -> Any:
    """An example of what is posted; None where nothing is."""
    content = ((one.get("requestBody") or {}).get("content") or {}).get("application/json")
    if content is None:
        return None
    found = next(_examples(document, content), None)
    return next(_examples(document, content.get("schema") or {}), {}) if found is None else found


def _examples(document: Mapping[str, Any], node: Mapping[str, Any], depth: int = 0) -> Iterator[Any]:
    """Examples of a schema, a parameter or a body, the nearest first."""
    if depth > 5:
        return
    if "example" in node:
        yield node["example"]
    found = node.get("examples")
    for one in found.values() if isinstance(found, dict) else found or []:
        example = _resolved(document, str(one["$ref"])) if isinstance(one, dict) and "$ref" in one else one
        yield example["value"] if isinstance(example, Mapping) and "value" in example else example
    if "$ref" in node:
        yield from _examples(document, _resolved(document, str(node["$ref"])), depth + 1)
    for one in [*node.get("anyOf", []), *node.get("oneOf", [])]:
        yield from _examples(document, one, depth + 1)


def _resolved(document: Mapping[str, Any], ref: str) -> Mapping[str, Any]:
    node: Any = document
    for part in ref.removeprefix("#/").split("/"):
        node = node.get(part) or {}
    return node if isinstance(node, Mapping) else {}
