"""The privacy card: on one page, who learns what from a run and what is promised about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.errors import PlanError
from coterie.report.reading import Result, count, known, size

_NEIGHBOURS = {
    "add-or-remove-one": "two populations are neighbours if one has one user more (add or remove one)",
    "replace-one": "two populations are neighbours if they differ in the data of one user (replace one)",
}
_NOISE = {
    "none": "none",
    "central": "central: the server adds it to the sum, and is trusted to",
    "distributed": "distributed: each client adds a share to what it sends, so the server never has a sum without it",
    "local": "local: each user's own contribution carries it, so nobody is trusted",
}
_AGGREGATION = {
    "plain": "plain: sums travel in the clear",
    "secure": "secure: the server learns the sum of all clients and nothing else of what they send",
}
_SAMPLERS = {
    "all": "all users in every round: nothing is gained by chance",
    "poisson": "each user by a secret coin in every round",
    "fixed": "so many clients in every round, drawn in secret without replacement",
}
_MASKS = {
    "real": "real: every client ran the protocol",
    "elided": "elided: the masks of simulated devices, which cancel, were left out, and with them their single shares "
    "of noise, which were drawn as their sum",
    "none": "none",
}
_PUBLIC = (
    "Which items exist is public, and so are titles, item attributes, the list of clients, and the times that divide "
    "training from test."
)
_OWN = (
    "A client's own model and mix are made from its own rows without noise: they protect from peers as long as they "
    "stay at the client, and are covered by no epsilon."
)
_OTHERS = "Other runs on the same users add up: the ledger keeps the account."

_ROSTER = (
    "Every client is one user, so the list of clients says who takes part, and so do its length, the fewest clients "
    "in a sum and the size of the noise: epsilon covers what users did, not that they take part."
)


@dataclass(frozen=True)
class Card:
    """What a card states, line by line in Markdown (``**strong**``, names in backticks), for whoever lays it out.

    `promise` are its rows by name; `parts` are those of the result; `promised` says whether an epsilon is claimed.
    """

    lead: str
    subject: str
    promised: bool
    promise: Mapping[str, str]
    sees: tuple[str, ...]
    leaves: tuple[str, ...]
    parts: Sequence[Mapping[str, Any]]
    uncovered: tuple[str, ...]


def privacy_card(info: Result) -> str:
    """The card of a run as Markdown. `info` is the run's result (``coterie train --json``).

    Read are ``privacy`` (``unit``, ``neighbours``, ``epsilon``, ``noise``, ``aggregation``, ``rounds``; of a plan with
    noise also ``delta``, ``accountant``, ``sampler``, ``epsilon_spent``, ``noise_source`` and ``masks``; and, where
    known, ``clip_norm``, ``min_clients``, ``ring_bits`` and ``parts``: name, size, l2, linf and noise_std of each array
    that is summed), ``traffic``, ``data``, ``scope``, ``model`` and ``run``.

    Raises:
        PlanError: the plan is one that this card cannot describe, or a fact that it must state is missing.
    """
    card = card_of(info)
    sections = [
        ["# Privacy card", "", f"{card.lead} {card.subject}".strip()],
        [
            "## What is promised",
            "",
            "| | |",
            "|---|---|",
            *(f"| {key} | {text} |" for key, text in card.promise.items()),
        ],
        ["## Who sees what", "", *_points(card.sees)],
        ["## What leaves a client", "", *_points(card.leaves), *_parts(card.parts, promised=card.promised)],
        ["## What this does not cover", "", *_points(card.uncovered)],
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def card_of(info: Result) -> Card:
    """The facts of a run's card. Reads and raises as `privacy_card`."""
    privacy = info.get("privacy")
    if not privacy:
        raise PlanError("a privacy card needs the run's 'privacy' facts, and the result has none")
    aggregation, noise, epsilon = (privacy.get(name) for name in ("aggregation", "noise", "epsilon"))
    promised = known(epsilon) is not None and noise != "none"
    if aggregation not in _AGGREGATION or noise not in _NOISE or not (promised or (noise, epsilon) == ("none", "none")):
        raise PlanError(
            f"this card cannot describe aggregation {aggregation!r} with noise {noise!r} and epsilon {epsilon!r}"
        )
    return Card(
        lead=_lead(privacy, promised=promised),
        subject=_subject(info),
        promised=promised,
        promise=_promise(privacy, promised=promised),
        sees=_who_sees_what(info, privacy),
        leaves=_what_leaves(info, privacy, promised=promised),
        parts=privacy.get("parts") or [],
        uncovered=_limits(info, privacy, promised=promised),
    )


def _points(lines: Sequence[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _subject(info: Result) -> str:
    about = [f"{name} `{info[name]}`" for name in ("model", "run") if info.get(name)]
    data = info.get("data") or {}
    about += [f"{count(data[name])} {name}" for name in ("clients", "users", "items") if data.get(name) is not None]
    return f"This card is about {', '.join(about)}." if about else ""


def _lead(privacy: Mapping[str, Any], *, promised: bool) -> str:
    if not promised:
        return "**No differential privacy.**"
    if _simulated(privacy):
        return (
            "**Simulated noise: no privacy.** The noise came from the seed, so whoever knows the seed can take it "
            f"off; real noise of this size would give epsilon {_short(privacy['epsilon'])}. Never to be released."
        )
    return f"**Epsilon {_short(privacy['epsilon'])} at delta {_short(_fact(privacy, 'delta'))} for each user.**"


def _promise(privacy: Mapping[str, Any], *, promised: bool) -> dict[str, str]:
    neighbours = str(_fact(privacy, "neighbours"))
    rows = {
        "unit of privacy": _unit(str(_fact(privacy, "unit"))),
        "neighbours": _NEIGHBOURS.get(neighbours, neighbours),
    }
    if promised:
        rows |= _guarantee(privacy)
    else:
        rows["epsilon"] = (
            "none: no differential privacy; whoever sees the sums or the model can learn about single users"
        )
    return rows | {
        "noise": _NOISE[str(privacy["noise"])],
        "aggregation": _AGGREGATION[str(privacy["aggregation"])],
        "masks": _MASKS.get(str(privacy.get("masks") or "none"), str(privacy.get("masks"))),
        "rounds": count(privacy.get("rounds")),
        "fewest clients in a sum": count(privacy.get("min_clients")),
    }


def _guarantee(privacy: Mapping[str, Any]) -> dict[str, str]:
    """Epsilon, delta and how they were counted."""
    rows = {
        "epsilon": f"{_short(privacy['epsilon'])} for the model that is served",
        "epsilon spent": f"{_short(_fact(privacy, 'epsilon_spent'))} by {count(privacy.get('attempts'))} sums that "
        "left, attempts that failed after they were paid for included",
        "delta": _short(_fact(privacy, "delta")),
        "accountant": f"{_fact(privacy, 'accountant')}, of the sampler that ran",
        "sampler": _SAMPLERS.get(str(_fact(privacy, "sampler")), str(privacy["sampler"])),
        "noise drawn from": str(_fact(privacy, "noise_source")),
    }
    if privacy.get("sampler") != "all":
        rows["epsilon towards the coordinator"] = (
            f"{_short(_fact(privacy, 'epsilon_towards_coordinator'))}: it knows who took part, so sampling hides "
            "nobody from it"
        )
    if privacy.get("items_from") == "the log":
        rows["list of items"] = "taken to be public, but read from the log: an item that one user alone had shows"
    if account := privacy.get("account"):
        limit = "no limit" if account.get("limit") is None else f"limit {_short(account['limit'])}"
        rows["account"] = f"`{account['name']}`: lifetime epsilon {_short(account['epsilon'])} over all runs, {limit}"
    if privacy.get("noise") == "distributed":
        rows["noise that is counted on"] = (
            f"that of {count(privacy.get('min_clients'))} clients, less {count(privacy.get('max_colluding'))} that "
            "may work with the server"
        )
    return rows


def _who_sees_what(info: Result, privacy: Mapping[str, Any]) -> tuple[str, ...]:
    devices = one_user_each(info)
    if privacy["aggregation"] == "plain":
        each = "Here every client is one user, so it sees what one person did. " if devices else ""
        noised = " with each user's noise in it" if privacy["noise"] == "local" else " in the clear"
        server = (
            f"**The server** sees the sum of each client{noised}. {each if privacy['noise'] != 'local' else ''}It "
            "never receives rows of a log, user ids or baskets; but sums over few users can give them away, so the "
            "server must be trusted."
        )
    else:
        kept = " that is noisy already" if privacy["noise"] in ("distributed", "local") else ""
        server = f"**The server** sees the sum of all clients{kept}, and of no single one. {_claim(privacy)}"
    noised = privacy["noise"] != "none"
    return (
        server,
        "**Other clients** see the model and, with it, the "
        + ("noisy sum over all clients." if noised else "sum over all clients. A client can subtract its own part."),
        "**Whoever has the model file** has what can be computed from the "
        + ("noisy " if noised else "")
        + "sum over all clients"
        + (_covers(privacy) if noised else "."),
        "**User histories, carts and a client's own model** stay at the client.",
    )


def _covers(privacy: Mapping[str, Any]) -> str:
    if privacy.get("sampler", "all") != "all":
        return ": covered by epsilon, unless they know who took part."
    return ": covered by epsilon, whatever else they know."


def _claim(privacy: Mapping[str, Any]) -> str:
    if privacy.get("masks") == "elided":
        return "In this simulation one process held all clients, and their masks were left out."
    against = privacy.get("holds_against") or "a semi-honest server, while fewer clients than the threshold help it"
    return f"This holds against {against}."


def _what_leaves(info: Result, privacy: Mapping[str, Any], *, promised: bool) -> tuple[str, ...]:
    traffic, clip, bits = info.get("traffic") or {}, privacy.get("clip_norm"), known(privacy.get("ring_bits"))
    upload, download = size(traffic.get("upload_bytes_per_client")), size(traffic.get("download_bytes_per_client"))
    ring = "" if bits is None else f" of {bits:.0f} bits"
    if clip is None:
        bound = "is bounded by the model's own weights; no clip norm was asked for"
        if promised:
            bound = "is clipped to the model's own bounds, below"
    elif isinstance(clip, Mapping):
        bound = "is clipped, by part: " + ", ".join(f"{part} {_short(norm)}" for part, norm in clip.items())
    else:
        bound = f"is clipped to an L2 norm of {_short(clip)} per part"
    lines = [
        f"Upload: {upload} per client over all rounds; download: {download}.",
        f"Integers{ring}, added exactly.",
        f"One user's contribution {bound}.",
    ]
    free = [one for one in privacy.get("left") or [] if not one.get("charged")]
    if promised and free:
        shown = "; ".join(f"{one['what']} ({one['why']})" if one.get("why") else str(one["what"]) for one in free)
        lines.append(f"**Outside epsilon**, shown because this is a simulation: {shown}.")
    return tuple(lines)


def _parts(parts: Sequence[Mapping[str, Any]], *, promised: bool) -> list[str]:
    """The arrays that are summed, how far one user can move each, and the noise on it."""
    if not parts:
        return []
    head = "| part | numbers | one user moves it by at most (L2) | and each number by at most |"
    rule = "|---|--:|--:|--:|"
    if promised:
        head, rule = "| round " + head + " noise on each number |", "|--:" + rule + "--:|"
    rows = []
    for part in parts:
        row = (
            f"| `{part['name']}` | {count(part.get('size'))} | {_bound(part.get('l2'))} | {_bound(part.get('linf'))} |"
        )
        rows.append(f"| {count(part.get('round'))} {row} {_bound(part.get('noise_std'))} |" if promised else row)
    return ["", head, rule, *dict.fromkeys(rows)]


def _limits(info: Result, privacy: Mapping[str, Any], *, promised: bool) -> tuple[str, ...]:
    lines = list[str]()
    if info.get("scope") == "simulation":
        lines.append(
            "**Simulation**: one process held the logs of all clients; nothing protected them from that process."
        )
        if not promised or any(not one.get("charged") for one in privacy.get("left") or []):
            lines.append("Metrics are raw: they were computed on held-out interactions and are outside any epsilon.")
    if promised:
        lines += [_PUBLIC, _OWN, _OTHERS]
        if one_user_each(info):
            lines.append(_ROSTER)
    else:
        lines.append("Cleaning, splitting and the choice of items looked at the logs as they are.")
    if privacy.get("partners"):
        lines.append(str(privacy["partners"]))
    return (
        *lines,
        "Suggestions can reveal what was bought together; who may ask for them is for the operator to decide.",
    )


def one_user_each(info: Result) -> bool:
    """Whether every client is one user, or one guest's basket: a device, with no organisation behind it.

    The number of users is not said where nothing but noised sums is; the result then says so itself.
    """
    data = info.get("data") or {}
    if data.get("one_user_each") is not None:
        return bool(data["one_user_each"])
    users, clients = data.get("users"), data.get("clients")
    return users is not None and clients in (users, users + (data.get("guests") or 0))


def _simulated(privacy: Mapping[str, Any]) -> bool:
    return privacy.get("releasable") is False


def _fact(privacy: Mapping[str, Any], name: str) -> Any:
    if privacy.get(name) is None:
        raise PlanError(f"a privacy card must state '{name}', and the run's 'privacy' facts have none")
    return privacy[name]


def _unit(unit: str) -> str:
    return "a user at one client (the same person at two clients counts twice)" if unit == "user" else f"a {unit}"


def _short(number: Any) -> str:
    return f"{float(number):.4g}"


def _bound(number: Any) -> str:
    value = known(number)
    return "unbounded" if value is None else f"{value:.4g}"
