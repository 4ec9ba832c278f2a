"""What operators see of a federation in a terminal: the coordinator's side, a node's side, and a log line by line.

    coordinator_view, node_view    what is going on, for a screen that is drawn again and again
    line_of                        what has changed since the last look, where nothing can be drawn again

All fits 80 columns, is readable without colour, and shows of each member what operating it takes: never how well its
own model does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from coterie.report.federation_lines import line_of
from coterie.report.federation_words import (
    ENDED,
    LEAST,
    REFUSED,
    Status,
    asked_of_us,
    doing,
    dropped,
    duration,
    errors,
    in_a_job,
    members,
    moment,
    node_doing,
    shared_figures,
    waited_for,
)
from coterie.report.printable import cell, printable
from coterie.report.reading import MISSING, count, known, size

__all__ = ["coordinator_view", "line_of", "node_view"]

MOST_MEMBERS, MOST_JOBS, MOST_ERRORS, MOST_EVENTS, MOST_ROUNDS, MOST_FIGURES = 20, 6, 8, 6, 5, 3
_RANK = ("approved", "pending", "invited", "revoked")


def coordinator_view(status: Status, now: float | None = None) -> RenderableType:
    """A coordinator's status for a person; `now` is in seconds since 1970."""
    at = time.time() if now is None else now
    name = (
        f"{status.get('federation') or 'a federation'}: coordinator at {status.get('address') or 'an unknown address'}"
    )
    roster = [] if status.get("roster_version") is None else [f"roster {status['roster_version']}"]
    parts: list[RenderableType] = [*_heading(name, status, at, roster), Text(f"{doing(status, at)}.", style="bold")]
    parts += [Text(sentence) for sentence in _so_far(status)]
    parts += [Text(sentence, style="yellow") for sentence in asked_of_us(status)]
    if members(status):
        parts += [_members_table(status, at)]
    parts += [*_errors(status), *_jobs(status, at), *_rounds(status), *_gains(status), *_events(_progress(status), at)]
    return Group(*parts)


def node_view(status: Status, now: float | None = None) -> RenderableType:
    """A node's status for a person; `now` is in seconds since 1970."""
    at = time.time() if now is None else now
    name = f"{status.get('name') or 'a node'}: node of {status.get('federation') or 'a federation'}"
    address = [f"coordinator at {status['address']}"] if status.get("address") else []
    address += [] if status.get("own_users") is None else [f"{count(status['own_users'])} users"]
    parts: list[RenderableType] = [*_heading(name, status, at, address), Text(f"{node_doing(status)}.", style="bold")]
    if status.get("gain"):
        parts.append(cell(f"{str(status['gain'])[:1].upper()}{str(status['gain'])[1:]}."))
    parts += [*_errors(status), *_node_jobs(status), *_budget(status), *_egress(status, at), *_events(status, at)]
    return Group(*parts)


# --- what both have ---------------------------------------------------------------------------------------------------


def _heading(name: str, status: Status, now: float, facts: Sequence[str]) -> Iterator[Text]:
    yield cell(name, style="bold cyan")
    since = known(status.get("since"))
    runs = [f"running for {duration(now - since)}"] if status.get("running") and since is not None else []
    yield cell(", ".join([f"fingerprint {status.get('fingerprint') or 'unknown'}", *facts, *runs]), style="dim")
    yield Text()


def _errors(status: Status) -> Iterator[RenderableType]:
    """Errors with their remedies, below the name of who had them."""
    found = list(errors(status))
    if found:
        yield _title("Errors")
    for whose, text in found[:MOST_ERRORS]:
        yield _indented(Text.assemble((f"{whose}: ", "bold"), text))
    if len(found) > MOST_ERRORS:
        yield _indented(Text(f"and {len(found) - MOST_ERRORS:,} more, which --json shows", style="dim"))


def _events(source: Mapping[str, Any], now: float) -> Iterator[RenderableType]:
    events = list(source.get("events") or [])[-MOST_EVENTS:]
    if not events:
        return
    yield _title("Lately")
    table = Table.grid(padding=(0, 2), pad_edge=False)
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for event in events:
        table.add_row(_ago(event.get("time"), now), cell(event.get("text", "")))
    yield _indented(table)


def _ago(when: Any, now: float) -> Text:
    at = moment(when)
    return Text(MISSING if at is None else f"{duration(now - at)} ago")


# --- the coordinator --------------------------------------------------------------------------------------------------


def _so_far(status: Status) -> Iterator[str]:
    """What has been done and spent, and who was lost on the way."""
    progress = _progress(status)
    if not status.get("running"):
        return
    if in_a_job(progress):
        epsilon, rounds = known(progress.get("epsilon_spent")), len(progress.get("rounds") or [])
        done = f"{rounds:,} round{' is' if rounds == 1 else 's are'} done"
        cost = "no epsilon" if epsilon is None else f"epsilon {epsilon:.4g}"
        yield f"{done}; each user has been charged {cost} so far."
    yield dropped(status)


def _members_table(status: Status, now: float) -> Table:
    """One row a member: whether it is there, what has travelled, how often it dropped out."""
    waited, rows = waited_for(status), _in_order(status)
    left = len(rows) - MOST_MEMBERS
    notes = ["> waited for"] if waited else []
    notes += [f"{left:,} more that are not waited for" if left > 0 else ""]
    table = _table("Members", "; ".join(filter(None, notes)))
    table.add_column("  member", overflow="fold")
    for name in ("connected", "to it", "from it", "drop-outs"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in rows[:MOST_MEMBERS]:
        named = Text.assemble(("> " if one["name"] in waited else "  ", "bold yellow"), printable(str(one["name"])))
        traffic = (size(one.get("sent_bytes")), size(one.get("received_bytes")))
        table.add_row(named, _connected(one, now), *traffic, count(one.get("dropouts")))
    return table


def _in_order(status: Status) -> list[Mapping[str, Any]]:
    """Who needs attention first: who is waited for, then by state, then who is away."""
    waited = waited_for(status)

    def place(one: Mapping[str, Any]) -> tuple[bool, int, bool, str]:
        state = str(one.get("state"))
        rank = _RANK.index(state) if state in _RANK else len(_RANK)
        return one["name"] not in waited, rank, one.get("online_since") is not None, str(one["name"])

    return sorted(members(status), key=place)


def _connected(one: Mapping[str, Any], now: float) -> Text:
    if one.get("state") != "approved":
        return cell(one.get("state") or MISSING, style="yellow" if one.get("state") == "pending" else "dim")
    since = known(one.get("online_since"))
    return Text("away", style="yellow") if since is None else Text(duration(now - since), style="green")


def _jobs(status: Status, now: float) -> Iterator[RenderableType]:
    """The jobs that are not over, and the last ones that are."""
    jobs = list(status.get("jobs") or [])
    open_ = [one for one in jobs if one.get("state") not in ENDED]
    over = [one for one in jobs if one.get("state") in ENDED]
    shown = [*over[len(over) - max(MOST_JOBS - len(open_), 1) :], *open_] if len(jobs) > MOST_JOBS else jobs
    if not shown:
        return
    table = _table("Jobs", f"{len(jobs) - len(shown):,} more that are over" if len(jobs) > len(shown) else "")
    table.add_column("job", overflow="fold")
    for name in ("model", "state", "since"):
        table.add_column(name, no_wrap=True)
    for one in shown:
        words = [cell(one.get(key) or MISSING) for key in ("id", "model", "state")]
        table.add_row(*words, _ago(one.get("finished_at") or one.get("started_at"), now))
    yield table
    for one in shown:
        if one.get("reason"):
            yield _indented(Text.assemble((f"{printable(str(one['id']))}: ", "bold"), printable(str(one["reason"]))))


def _rounds(status: Status) -> Iterator[RenderableType]:
    """The last rounds: how many members were in the sum, and what was measured, where enough were."""
    rounds = list(_progress(status).get("rounds") or [])[-MOST_ROUNDS:]
    if not rounds:
        return
    names = list(dict.fromkeys(name for one in rounds for name in shared_figures(one)))[:MOST_FIGURES]
    hidden = any(one.get("metrics") and not shared_figures(one) for one in rounds)
    table = _table("Rounds", f"no metrics of sums over fewer than {LEAST} members are shown" if hidden else "")
    table.add_column("round", justify="right", no_wrap=True)
    table.add_column("members in the sum", justify="right", no_wrap=True)
    for name in names:
        table.add_column(cell(name), justify="right", overflow="fold")
    for one in rounds:
        found = shared_figures(one)
        figures = [f"{found[name]:.4f}" if name in found else MISSING for name in names]
        table.add_row(str(one.get("round", MISSING)), count(one.get("clients")), *figures)
    yield table


def _gains(status: Status) -> Iterator[RenderableType]:
    """What members reported together of the model's worth."""
    gains = status.get("gains")
    if not gains:
        return
    yield _title("What joining is worth, as reported by all together")
    found, noise = shared_figures(gains), gains.get("noise") or {}
    if not found:
        yield _indented(
            Text(f"reported by fewer than {LEAST} members, of which each could compute the others': not shown")
        )
    for name, value in found.items():
        words, form = _SAID_OF.get(name, (name, ".4f"))
        std = known(noise.get(name))
        about = f" ± {std:{form.removeprefix('+')}} by noise" if std else ""
        yield _indented(cell(f"{words}: {value:{form}}{about}"))


_SAID_OF = {"gained": ("share of the members that gain", ".0%"), "gain": ("mean gain of a member", "+.4f")}


def _progress(status: Status) -> Mapping[str, Any]:
    return status.get("progress") or {}


# --- a node -----------------------------------------------------------------------------------------------------------


def _node_jobs(status: Status) -> Iterator[RenderableType]:
    jobs = list(status.get("jobs") or [])[-MOST_JOBS:]
    if not jobs:
        return
    table = _table("Jobs")
    table.add_column("job", overflow="fold")
    for name in ("model", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("round", "epsilon"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in jobs:
        words = [cell(one.get(key) or MISSING) for key in ("id", "model", "state")]
        round_ = MISSING if one.get("round") is None else str(one["round"])
        table.add_row(*words, round_, _epsilon(one.get("epsilon")))
    yield table
    for one in jobs:
        for reason in one.get("waiting") or ():
            verb = "is refused" if one.get("state") == REFUSED else "waits"
            yield _indented(Text.assemble((f"{printable(str(one['id']))} {verb}: ", "bold"), printable(str(reason))))


def _budget(status: Status) -> Iterator[RenderableType]:
    """What has been spent on this node's users, of what."""
    budget = status.get("budget")
    if not budget:
        return
    yield _title("Privacy spent")
    account = printable(str(budget.get("account")))
    limit = known(budget.get("limit"))
    of = "no limit is set" if limit is None else f"of {limit:g}: {_epsilon(budget.get('remaining'))} remains"
    yield _indented(Text(f"account '{account}': epsilon {_epsilon(budget.get('spent'))} per user, {of}"))
    if known(budget.get("period_spent")) is not None:
        left = known(budget.get("period_remaining"))
        remains = "" if left is None else f", {left:.4g} remains"
        yield _indented(Text(f"in the current period: epsilon {_epsilon(budget['period_spent'])}{remains}"))


def _egress(status: Status, now: float) -> Iterator[RenderableType]:
    """What has left the site."""
    egress = status.get("egress")
    if not egress:
        return
    last = egress.get("last")
    line = last if isinstance(last, Mapping) else {"time": last}
    yield _title("What left this site")
    lines = int(egress.get("lines") or 0)
    said = f"{lines:,} message{'' if lines == 1 else 's'}, {size(egress.get('bytes'))}"
    if moment(line.get("time")) is not None:
        said += f", the last one {_ago(line.get('time'), now)}"
    said += f": {line['contains']}" if line.get("contains") else ""
    yield _indented(cell(f"{said}; all of them: coterie node egress show"))


def _epsilon(value: Any) -> str:
    """Four figures, and a dash where there is none."""
    found = known(value)
    return MISSING if found is None else f"{found:.4g}"


# --- how things are laid out ------------------------------------------------------------------------------------------


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _indented(inner: RenderableType) -> Padding:
    return Padding(inner, (0, 0, 0, 2))


def _table(title: str, caption: str = "") -> Table:
    return Table(
        title=Text(f"\n{title}", style="bold"),
        title_justify="left",
        caption=Text(caption, style="dim") if caption else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        min_width=min(max(len(title), len(caption)), 72),  # titles and captions are as wide as their table
    )
