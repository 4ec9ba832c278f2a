"""The privacy card: on one page, who learns what from a run and what is promised about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coterie.errors import PlanError
from coterie.report.reading import Result, count, known, size

_NEIGHBOURS = {
    "add-or-remove-one": "two populations are neighbours if one has one user more (add or remove one)",
    "replace-one": "two populations are neighbours if they differ in the data of one user (replace one)",
}


def privacy_card(info: Result) -> str:
    """The card of a run as Markdown. `info` is the run's result (``coterie train --json``).

    Read are ``privacy`` (``unit``, ``neighbours``, ``epsilon``, ``noise``, ``aggregation``, ``rounds`` and, where
    known, ``clip_norm``, ``min_clients``, ``ring_bits`` and ``parts``: name, size, l2 and linf of each array that is
    summed), ``traffic``, ``data``, ``scope``, ``model`` and ``run``.

    Raises:
        PlanError: the plan is one that this card cannot describe, or a fact that it must state is missing.
    """
    privacy = info.get("privacy")
    if not privacy:
        raise PlanError("a privacy card needs the run's 'privacy' facts, and the result has none")
    asked = (privacy.get("aggregation"), privacy.get("noise"), privacy.get("epsilon"))
    if asked != ("plain", "none", "none"):
        raise PlanError(
            "this version describes aggregation 'plain' with noise 'none' and epsilon 'none', got aggregation "
            f"{asked[0]!r}, noise {asked[1]!r} and epsilon {asked[2]!r}"
        )
    sections = [_heading(info), _promise(privacy), _who_sees_what(info), _what_leaves(info, privacy), _limits(info)]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _heading(info: Result) -> list[str]:
    about = [f"{name} `{info[name]}`" for name in ("model", "run") if info.get(name)]
    data = info.get("data") or {}
    about += [f"{count(data[name])} {name}" for name in ("clients", "users", "items") if data.get(name) is not None]
    subject = f"This card is about {', '.join(about)}." if about else ""
    return ["# Privacy card", "", f"**No differential privacy.** {subject}".strip()]


def _promise(privacy: Mapping[str, Any]) -> list[str]:
    neighbours = str(_fact(privacy, "neighbours"))
    return [
        "## What is promised",
        "",
        "| | |",
        "|---|---|",
        f"| unit of privacy | {_unit(str(_fact(privacy, 'unit')))} |",
        f"| neighbours | {_NEIGHBOURS.get(neighbours, neighbours)} |",
        "| epsilon | none: no differential privacy; whoever sees the sums or the model can learn about single users |",
        "| noise | none |",
        "| aggregation | plain: sums travel in the clear |",
        f"| rounds | {count(privacy.get('rounds'))} |",
        f"| fewest clients in a sum | {count(privacy.get('min_clients'))} |",
    ]


def _who_sees_what(info: Result) -> list[str]:
    devices = (info.get("data") or {}).get("clients") == (info.get("data") or {}).get("users")
    each = "Here every client is one user, so it sees what one person did. " if devices else ""
    return [
        "## Who sees what",
        "",
        "- **The server** sees the sum of each client in the clear. "
        + each
        + "It never receives rows of a log, user ids "
        "or baskets; but sums over few users can give them away, so the server must be trusted.",
        "- **Other clients** see the model and, with it, the sum over all clients. A client can subtract its own part.",
        "- **Whoever has the model file** has what can be computed from the sum over all clients.",
        "- **User histories, carts and a client's own model** stay at the client.",
    ]


def _what_leaves(info: Result, privacy: Mapping[str, Any]) -> list[str]:
    traffic, clip, bits = info.get("traffic") or {}, known(privacy.get("clip_norm")), known(privacy.get("ring_bits"))
    upload, download = size(traffic.get("upload_bytes_per_client")), size(traffic.get("download_bytes_per_client"))
    ring = "" if bits is None else f" of {bits:.0f} bits"
    if clip is None:
        bound = "is bounded by the model's own weights; no clip norm was asked for"
    else:
        bound = f"is clipped to an L2 norm of {clip:g} per part"
    lines = [
        "## What leaves a client",
        "",
        f"- Upload: {upload} per client over all rounds; download: {download}.",
        f"- Integers{ring}, added exactly.",
        f"- One user's contribution {bound}.",
    ]
    return lines + _parts(privacy.get("parts") or [])


def _parts(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The arrays that are summed, and how far one user can move each."""
    if not parts:
        return []
    rows = [
        f"| `{part['name']}` | {count(part.get('size'))} | {_bound(part.get('l2'))} | {_bound(part.get('linf'))} |"
        for part in parts
    ]
    return [
        "",
        "| part | numbers | one user moves it by at most (L2) | and each number by at most |",
        "|---|--:|--:|--:|",
        *rows,
    ]


def _limits(info: Result) -> list[str]:
    lines = ["## What this does not cover", ""]
    if info.get("scope") == "simulation":
        lines += [
            "- **Simulation**: one process held the logs of all clients; nothing protected them from that process.",
            "- Metrics are raw: they were computed on held-out interactions and are outside any epsilon.",
        ]
    lines += [
        "- Cleaning, splitting and the choice of items looked at the logs as they are.",
        "- Suggestions can reveal what was bought together; who may ask for them is for the operator to decide.",
    ]
    return lines


def _fact(privacy: Mapping[str, Any], name: str) -> Any:
    if privacy.get(name) is None:
        raise PlanError(f"a privacy card must state '{name}', and the run's 'privacy' facts have none")
    return privacy[name]


def _unit(unit: str) -> str:
    return "a user at one client (the same person at two clients counts twice)" if unit == "user" else unit


def _bound(number: Any) -> str:
    value = known(number)
    return "unbounded" if value is None else f"{value:.4g}"
