"""What `coterie plan` tells a person: the plan, what it costs, what its noise does, and what to expect of it.

Everything is read from the object that ``coterie plan --json`` prints. All fits 100 columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from coterie.report.printable import cell
from coterie.report.reading import MISSING, known, size

WIDTH = 100
SCHEMES = {
    "alone": ("alone", "each client learns from its own customers; nothing leaves it"),
    "private_mix": ("private mix", "what is served under this plan: with the client's own, weight chosen at home"),
    "private_federated": ("private federation", "one model from the noised sums"),
    "private_popularity": ("private popularity", "the noised counts alone"),
    "mix": ("mix without noise", "what is served if nothing is promised"),
    "federated": ("federation without noise", "one model from the exact sums"),
    "popularity": ("popularity without noise", "the exact counts alone"),
}
BY_ZCDP = "counted by zCDP, and so somewhat more than they spend"
BY_ZCDP_UNSAMPLED = "counted by zCDP and as if everybody took part every time, and so far more than they spend"
NO_PROMISE = (
    "No differential privacy is asked for (epsilon = none): nothing is spent, and nothing is promised. --epsilon 4 "
    "shows what a promise costs."
)


def plan_report(content: Mapping[str, Any]) -> list[RenderableType]:
    """Everything that a person reads, in the order of the questions: what, how private, how noisy, how good."""
    parts: list[RenderableType] = [_heading(content), _plan_table(content), *_cost(content), _rounds_table(content)]
    parts += [_indented(sentence) for sentence in _meanings(content)]
    if content["year"]:
        parts += [_title("A year"), *map(_indented, _year(content["year"], content["plan"]["sampler"]["value"]))]
        parts += [_title("The account"), *map(_indented, _account(content["account"], content.get("ledger")))]
    if content["simulation"]:
        parts += _simulation(content["simulation"], private=content["private"])
    return parts


# --- the plan, and what it costs -------------------------------------------------------------------------------------


def _heading(content: Mapping[str, Any]) -> Text:
    who = f"{content['users']:,} users, each a client" if content["devices"] else _organisations(content)
    return Text(f"{content['model']} over {content['items']:,} items, {who}", style="bold")


def _organisations(content: Mapping[str, Any]) -> str:
    clients, users = content["clients"], content["users"]
    return f"{users:,} users at {clients:,} client{'' if clients == 1 else 's'}"


def _plan_table(content: Mapping[str, Any]) -> Table:
    """Every field of the plan, those that were asked for in bold."""
    table = _table("The plan")
    for name in ("field", "value", "from"):
        table.add_column(name, no_wrap=True)
    table.add_column("which is")
    for name, fact in content["plan"].items():
        style = "bold" if fact["from"] == "asked" else ""
        shown = Text(_value(fact["value"]), style=style)
        table.add_row(Text(name, style=style), shown, Text(fact["from"], style="dim"), cell(fact["note"] or ""))
    return table


def _cost(content: Mapping[str, Any]) -> Iterator[RenderableType]:
    cost, noise = content["cost"], content["noise"]
    yield _title("What is promised")
    if cost is None:
        yield _indented(NO_PROMISE)
        return
    yield _indented(
        f"epsilon {_short(cost['epsilon'])} at delta {_short(cost['delta'])} for one {cost['unit']} "
        f"({cost['neighbours']}), by {_count(cost['releases'], 'noised sum')}; counted by {cost['accountant']}"
    )
    if releases := content["metrics"]["releases"]:
        share, sums = content["metrics"]["share"], _count(releases, "noised sum")
        yield _indented(f"{share:.0%} of the noise budget pays for metrics, in {sums}")
    if content["plan"]["sampler"]["value"] != "all":
        yield _indented(
            f"towards the coordinator, who knows who took part: epsilon {_short(cost['epsilon_towards_coordinator'])}"
        )
    yield _indented(f"noise: {noise['noise']}: {noise['who']}")
    if noise["excess"] > 1.005:
        yield _indented(
            f"where all {noise['adders']:,} finish, the noise is {noise['excess']:.2f} times what is counted on; the "
            "figures below are with all of it"
        )
    if content["plan"]["simulated_noise"]["value"]:
        yield _indented("simulated_noise: the noise comes from the seed, and is worth nothing as privacy")


def _rounds_table(content: Mapping[str, Any]) -> Table:
    """What every round sums, and the noise on it."""
    caption = [f"each client sends {size(content['upload_bytes_per_client'])} in all", content["rounds_assume"]]
    table = _table("What is summed", caption="; ".join(one for one in caption if one))
    table.add_column("round", justify="right")
    table.add_column("part")
    for name in ("numbers", "one user moves it by (L2)", "one number by", "noise on each", "noise multiplier"):
        table.add_column(name, justify="right", max_width=14)
    for one in content["rounds"]:
        event = one["event"]
        for at, part in enumerate(one["parts"]):
            bounds = (_short(part["l2"], "no bound"), _short(part["linf"], "no bound"))
            noise = f"±{_short(part['noise_std'])}" if part["noise_std"] else "none"
            first = (
                f"{one['round'] + 1}" if not at else "",
                _short(event["noise_multiplier"]) if event and not at else "",
            )
            table.add_row(first[0], cell(part["name"]), f"{part['size']:,}", *bounds, noise, first[1])
    return table


def _meanings(content: Mapping[str, Any]) -> Iterator[str]:
    """What the noise does, part by part; said once where rounds repeat it."""
    if not content["private"]:
        return
    said = set()
    for one in content["rounds"]:
        for part in one["parts"]:
            if (line := f"{part['name']}: {part['means']}") not in said:
                said.add(line)
                yield line


# --- a year, and the account -----------------------------------------------------------------------------------------


def _year(year: Mapping[str, Any], sampler: str) -> Iterator[str]:
    runs, kept = year["runs"], year["epsilon_per_run"]
    how = BY_ZCDP if sampler == "all" else BY_ZCDP_UNSAMPLED
    spends = f"{_count(runs, 'run')} on the same users {'spends' if runs == 1 else 'spend'}"
    yield (
        f"{spends} epsilon {_short(year['epsilon'], 'without bound')} at delta {_short(year['delta'])} together "
        f"(adding up would say {_short(year['naive_sum'])})" + (f"; {how}" if year["by_zcdp"] else "")
    )
    if kept is None:
        yield f"no epsilon per run keeps {_count(runs, 'run')} within {_short(year['epsilon_kept'])}: make fewer"
    else:
        yield f"--epsilon {_short(kept)} per run keeps all of them within epsilon {_short(year['epsilon_kept'])}"


def _account(account: Mapping[str, Any], ledger: str | None) -> Iterator[str]:
    if not account["charged"]:
        yield "a run with simulated noise is charged to nobody"
        return
    if not account["exists"]:
        yield f"{account['why']} (ledger: {ledger})"
        return
    limits = []
    if account["limit"] is not None:
        limits.append(f"of {_short(account['limit'])}: {_short(account['remaining'])} remains")
    if account["period_limit"] is not None:
        limits.append(f"at most {_short(account['period_limit'])} in {account['period_days']:g} days")
    spent = f"'{account['account']}' has spent epsilon {_short(account['spent'])} at delta {_short(account['delta'])}"
    yield f"{spent}{', ' if limits else ''}{'; '.join(limits)} (ledger: {ledger})"
    if not account["accepted"]:
        yield f"this run would be REFUSED: {account['why']}"
        return
    left = "" if account["runs_left"] is None else f"; there is room for {_count(account['runs_left'], 'such run')}"
    yield f"this run would be accepted ({account['why']}){left}"


# --- the simulation --------------------------------------------------------------------------------------------------


def _simulation(found: Mapping[str, Any], private: bool) -> Iterator[RenderableType]:
    yield _title("What quality to expect: a simulation on synthetic data")
    clients = "each a client" if found["clients"] == found["users"] else f"{found['clients']} shops"
    yield _indented(
        f"{found['users']:,} customers ({clients}) of a made-up market with {found['items']:,} items, "
        f"{found['baskets_per_user']} baskets each, seed {found['seed']}; {found['seconds']:.0f} s. Figures on your "
        "own log will differ."
    )
    for sentence in found["capped"]:
        yield _indented(f"{sentence}.")
    yield _schemes_table(found)
    yield from map(_indented, _gains(found, private))
    yield _ladder_table(found, private)
    yield Text(f"{found['sentence'][0].upper()}{found['sentence'][1:]}.", style="bold")


def _schemes_table(found: Mapping[str, Any]) -> Table:
    table = _table("With and without noise")
    table.add_column("scheme", no_wrap=True)
    table.add_column(found["metric"], justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("", style="dim")
    for name, (label, about) in SCHEMES.items():
        if (one := found["schemes"].get(name)) is not None:
            shown = label if "private_federated" in found["schemes"] else label.replace(" without noise", "")
            style = "bold cyan" if name == "private_mix" else ""
            table.add_row(Text(shown, style=style), _figure(one["value"]), _interval(one["low"], one["high"]), about)
    return table


def _gains(found: Mapping[str, Any], private: bool) -> Iterator[str]:
    """What joining adds with and without noise."""
    gain = found["gain"]
    over = "training alone" if "alone" in found["schemes"] else "popularity"
    served, exact = gain.get("private_served"), gain["served"]
    if served is not None:
        yield f"what is served under this plan, against {over}: {_gained(served)}"
    yield f"{'without noise' if private else f'what is served, against {over}'}: {_gained(exact)}"
    if served is not None and exact["low"] is not None and exact["low"] > 0:
        shows = gain["kept"] is not None and served["low"] is not None and served["low"] > 0
        yield f"the noise leaves {gain['kept']:.0%} of it" if shows else "the noise leaves nothing of it that shows"


def _ladder_table(found: Mapping[str, Any], private: bool) -> Table:
    """The plan at growing numbers of customers."""
    alone = any("alone" in rung["schemes"] for rung in found["ladder"])
    against = "alone" if alone else "popularity"
    shown = [against, "federated", *(["mix"] if alone else [])]
    noise = "; all under the plan, each rung with one draw of its noise" if private else ""
    table = _table("From how many customers?", caption=f"{found['metric']}; intervals are over customers{noise}")
    table.add_column("customers", justify="right")
    if alone:
        table.add_column("a client", justify="right")
    for name in shown:
        table.add_column(name, justify="right")
    table.add_column(f"gain over {against}", justify="right")
    table.add_column("95 % interval", justify="right", no_wrap=True)
    for rung in found["ladder"]:
        values = [_figure(rung["schemes"].get(name)) for name in shown]
        sizes = [f"{rung['users']:,}", *([f"{rung['per_client']:,}"] if alone else [])]
        gain = cell(rung["refused"], style="dim") if rung["refused"] else _signed(rung["gain"])
        table.add_row(*sizes, *values, gain, _verdict(rung))
    return table


def _verdict(rung: Mapping[str, Any]) -> Text:
    if rung["low"] is None:
        return Text(MISSING)
    style = "green" if rung["low"] > 0 else "red" if rung["high"] < 0 else ""
    return Text(_signed_interval(rung["low"], rung["high"]), style=style)


def _gained(one: Mapping[str, Any]) -> str:
    if one["low"] is None:
        return _signed(one["gain"])
    verdict = "a gain" if one["low"] > 0 else "a loss" if one["high"] < 0 else "no difference that shows"
    return f"{_signed(one['gain'])} ({_signed_interval(one['low'], one['high'])}): {verdict}"


# --- how things are written ------------------------------------------------------------------------------------------


def _value(value: Any) -> str:
    """A field of the plan, as it is written in a settings file.

    >>> _value(None), _value({"counts": 2.0}), _value(1e-06), _value(True), _value(100000)
    ('–', 'counts=2', '1e-06', 'yes', '100,000')
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_short(one)}" for name, one in value.items())
    if isinstance(value, int):
        return f"{value:,}"
    return _short(value) if isinstance(value, float) else str(value)


def _short(number: Any, otherwise: str = MISSING) -> str:
    """Four figures; `otherwise` where there is no number (or none that is finite).

    >>> _short(12345.678), _short(0.00001), _short(None, "no bound")
    ('12,350', '1e-05', 'no bound')
    """
    value = known(number)
    if value is None:
        return otherwise if not isinstance(number, str) else number
    if abs(value) < 10_000:
        return f"{value:.4g}"
    return f"{float(f'{value:.4g}'):,.0f}" if abs(value) < 1e15 else f"{value:.3g}"


def _figure(number: Any) -> str:
    value = known(number)
    return MISSING if value is None else f"{value:.4f}"


def _signed(number: Any) -> str:
    value = known(number)
    return MISSING if value is None else f"{value:+.4f}"


def _interval(low: Any, high: Any) -> str:
    return MISSING if known(low) is None else f"{low:.3f} to {high:.3f}"


def _signed_interval(low: float, high: float) -> str:
    return f"{low:+.4f} to {high:+.4f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _indented(sentence: str) -> RenderableType:
    return Padding(Text(sentence), (0, 0, 0, 2))


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=Text(f"\n{title}", style="bold"),
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
