"""What operators see of a federation: one sentence that says what is waited for, and nothing that breaks a screen."""

import io
import re
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from coterie.federation.network import SAID
from coterie.federation.progress import Progress
from coterie.report.federation_view import coordinator_view, line_of, node_view
from coterie.report.federation_words import PHASES, ROUND_PHASES, WAITING, doing, node_doing, shared_figures

NOW = 1_760_000_000.0
FINGERPRINT = "3f2a9c0e71b24d5f8a6e0c1d2b3a4958"
SOURCES = Path(__file__).parents[2] / "coterie"


def member(name, state="approved", online=NOW - 7800, **more):
    facts = {"fingerprint": FINGERPRINT, "since": NOW - 9e5, "sent_bytes": 1_250_000, "received_bytes": 310_000}
    return {"name": name, "state": state, "online_since": online, **facts, "dropouts": 0, "last_error": "", **more}


def training():
    """The progress of a job in its fourth round, as the coordinator keeps it."""
    progress = Progress(clock=lambda: NOW)
    progress.begin("weekly-1f00.0", "ials")
    for index in range(3):
        progress.round_done({"round": index, "clients": 4})
    progress.spent(1.302)
    progress.phase("summing", ["north", "south"], 130.0, round=3, attempt=0, what="model")
    return progress


def coordinator(**more):
    job = {"id": "weekly-1f00.0", "name": "weekly", "model": "ials", "state": "running", "reason": "", "round": 3}
    return {
        "federation": "greengrocers",
        "fingerprint": FINGERPRINT,
        "address": "train.example.org:9443",
        "running": True,
        "since": NOW - 90_000,
        "pid": 4711,
        "roster_version": 4,
        "progress": training().snapshot(),
        "members": [member("north", online=None), member("south"), member("east"), member("west")],
        "jobs": [{**job, "started_at": NOW - 600, "finished_at": None, "folder": "runs/weekly-1f00.0"}],
        "children": [{"name": "superlink", "pid": 1, "restarts": 0, "last_error": ""}],
        "gains": None,
        "last_error": "",
        **more,
    }


def node(**more):
    job = {"id": "weekly-1f00", "occurrence": "weekly-1f00.0", "model": "ials", "state": "taking part"}
    return {
        "name": "north",
        "fingerprint": FINGERPRINT,
        "federation": "greengrocers",
        "coordinator": FINGERPRINT,
        "address": "train.example.org:9443",
        "running": True,
        "since": NOW - 60,
        "pid": 5,
        "connection": "connected since 2025-10-09 06:20 UTC",
        "jobs": [{**job, "epsilon": 4.0, "round": 3, "waiting": []}],
        "budget": {
            "account": "shop",
            "spent": 1.302,
            "limit": 8.0,
            "remaining": 6.7,
            "period_spent": 0.4,
            "period_remaining": 1.6,
        },
        "egress": {"lines": 214, "bytes": 12_345_678, "last": "2025-10-09T08:53:12.000Z"},
        "gain": None,
        "children": [],
        "events": [],
        "own_users": 801,
        **more,
    }


def lines(view, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None, highlight=False)
    console.print(view)
    shown = console.file.getvalue().splitlines()
    assert max(map(cell_len, shown)) <= width
    return [line.rstrip() for line in shown]


def shown(view):
    """All that is shown, as one line."""
    return " ".join(" ".join(lines(view)).split())


def row(view, name):
    return next(line.split() for line in lines(view) if name in line.split()[:2])


# --- the sentence -----------------------------------------------------------------------------------------------------


def test_one_sentence_says_what_is_waited_for_for_whom_and_how_long():
    expected = "weekly-1f00.0 (ials), round 3: summing; waits for north and south, 2 min 10 s at most"
    assert doing(coordinator(), NOW) == expected
    assert f"{expected}." in shown(coordinator_view(coordinator(), NOW))
    assert "1 min 10 s at most" in doing(coordinator(), NOW + 60)
    assert "whose time was over 5 s ago" in doing(coordinator(), NOW + 135)


def test_whoever_has_answered_is_not_waited_for():
    progress = training()
    progress.answered("north")
    assert "waits for south, 2 min" in doing(coordinator(progress=progress.snapshot()), NOW)
    progress.answered("south")
    assert doing(coordinator(progress=progress.snapshot()), NOW).endswith("summing; all that were asked have answered")


def test_a_lost_attempt_and_other_sums_are_named():
    progress = training()
    progress.phase("unmasking the sum", ["east"], 5.0, round=3, attempt=2, what="model")
    again = doing(coordinator(progress=progress.snapshot()), NOW)
    assert again.startswith("weekly-1f00.0 (ials), round 3, tried again (attempt 2): unmasking the sum; waits for east")
    progress.phase("summing", ["east"], 5.0, round=0, attempt=0, what="metrics")
    assert ", the reported metrics: summing" in doing(coordinator(progress=progress.snapshot()), NOW)
    progress.phase("delivering the model", ["east"], 5.0)
    assert "(ials): delivering the model" in doing(coordinator(progress=progress.snapshot()), NOW)


@pytest.mark.parametrize(
    ("phase", "sentence"),
    [
        ("waiting for members: round 4", "weekly-1f00.0 (ials), round 4: waits for north to connect, 1 h at most"),
        (
            "waiting for members to accept the job",
            "weekly-1f00.0 (ials): waits for north to accept the job, 1 h at most",
        ),
        (
            "waiting for 3 members to connect (2 are)",
            "Nothing is being trained: waiting for 3 members to connect (2 are); away: north",
        ),
    ],
)
def test_who_is_away_is_waited_for_by_name(phase, sentence):
    progress = training()
    progress.phase(phase, ["north"], 3600.0)
    assert doing(coordinator(progress=progress.snapshot()), NOW) == sentence


def test_between_jobs_it_says_how_the_last_one_ended_and_what_the_next_one_waits_for():
    waiting = {"id": "monthly-2b.0", "model": "ease", "state": "waiting", "reason": "2 of 3 nodes are connected"}
    ended = {"id": "weekly-1f00.0", "model": "ials", "state": "failed", "reason": "too few members accept the job"}
    idle = Progress().snapshot()
    assert doing(coordinator(progress=idle, jobs=[]), NOW) == "Nothing is being trained; no job is waiting"
    assert doing(coordinator(progress=idle, jobs=[waiting]), NOW) == (
        "Nothing is being trained; monthly-2b.0 (ease) waits: 2 of 3 nodes are connected"
    )
    progress = training()
    progress.phase("failed")
    said = doing(coordinator(progress=progress.snapshot(), jobs=[ended]), NOW)
    assert said == "weekly-1f00.0 (ials) failed: too few members accept the job; no job is waiting"


def test_every_phase_that_is_ever_said_is_known():
    """A phase without a word would be invisible to whoever alerts on it."""
    assert set(SAID.values()) == set(ROUND_PHASES)
    text = "\n".join(
        path.read_text() for part in ("federation", "experiment") for path in (SOURCES / part).glob("*.py")
    )
    literal = set(re.findall(r"\bprogress\.phase\(\s*f?\"([^\"]*)\"", text))
    assert len(literal) >= 6
    assert {phase for phase in literal if not phase.startswith(WAITING)} <= set(PHASES)


def test_a_daemon_that_does_not_run_says_how_to_start_it():
    assert "coterie coordinator start" in shown(coordinator_view(coordinator(running=False), NOW))
    assert "coterie node start" in shown(node_view(node(running=False), NOW))
    assert "coterie coordinator start" in shown(coordinator_view({}, NOW))
    assert "coterie node start" in shown(node_view({}, NOW))


# --- the coordinator --------------------------------------------------------------------------------------------------


def test_members_show_their_connection_traffic_and_drop_outs():
    status = coordinator()
    status["members"] += [member("late", "pending", None), member("new", "invited", None, sent_bytes=0)]
    status["members"][2]["dropouts"] = 2
    view = coordinator_view(status, NOW)
    assert row(view, "north") == [">", "north", "away", "1.2", "MB", "310.0", "kB", "0"]
    assert row(view, "south") == [">", "south", "2", "h", "10", "min", "1.2", "MB", "310.0", "kB", "0"]
    assert row(view, "east") == ["east", "2", "h", "10", "min", "1.2", "MB", "310.0", "kB", "2"]
    assert row(view, "new")[1] == "invited"
    assert "> waited for" in shown(view)
    assert "Dropped out: east (twice)." in shown(view)
    assert f"late asks to be admitted as {FINGERPRINT}" in shown(view)
    assert "coterie coordinator approve late --fingerprint" in shown(view)
    assert "Nobody has dropped out." in shown(coordinator_view(coordinator(), NOW))


def test_of_many_members_those_that_are_waited_for_are_shown():
    status = coordinator(members=[member(f"shop-{index:03}") for index in range(200)])
    status["progress"]["waiting_for"] = ["shop-150", "shop-199"]
    text = lines(coordinator_view(status, NOW))
    named = [line for line in text if "shop-" in line and "kB" in line]
    assert [line.split()[1] for line in named[:2]] == ["shop-150", "shop-199"]
    assert len(named) == 20
    assert any("180 more that are not waited for" in line for line in text)


def test_what_was_spent_is_said_and_none_is_not_zero():
    assert "3 rounds are done; each user has been charged epsilon 1.302 so far." in shown(
        coordinator_view(coordinator(), NOW)
    )
    progress = training()
    progress.spent(None)
    view = coordinator_view(coordinator(progress=progress.snapshot()), NOW)
    assert "each user has been charged no epsilon so far" in shown(view)


def test_errors_stand_with_their_remedy():
    own = "the job asks for epsilon = 9 and max_epsilon_total is 8 here (policy.toml); ask for at most that"
    status = coordinator(
        last_error="no space left on the device; free some",
        children=[{"name": "superexec", "pid": None, "restarts": 3, "last_error": "its port is taken"}],
    )
    status["members"][0]["last_error"], status["members"][1]["last_error"] = "answered another message", own
    view = shown(coordinator_view(status, NOW))
    assert "last error: no space left on the device; free some" in view
    assert "north: answered another message; at that node, coterie node status says more" in view
    assert f"south: {own} " in view
    assert "says more" not in view.partition(own)[2]
    restarted = (
        "superexec (not running, started again 3 times): its port is taken; its log is flower/logs/superexec.log"
    )
    assert restarted in view


def test_a_long_error_is_cut_in_the_middle_since_its_remedy_is_at_the_end():
    status = coordinator(last_error=f"it failed: {'x' * 5000}; free some space")
    view = lines(coordinator_view(status, NOW))
    assert len(view) < 60
    assert "free some space" in " ".join(view)


def test_quality_is_shown_of_sums_over_three_or_more_alone():
    gains = {"values": {"gained": 0.75, "gain": 0.0213}, "noise": {"gained": 0.0, "gain": 0.002}, "of": 4.0}
    view = shown(coordinator_view(coordinator(gains=gains), NOW))
    assert "share of the members that gain: 75%" in view
    assert "mean gain of a member: +0.0213 ± 0.0020 by noise" in view
    view = shown(coordinator_view(coordinator(gains={**gains, "of": 2.0}), NOW))
    assert "not shown" in view
    assert "0.0213" not in view
    assert shared_figures({"clients": 2, "metrics": {"ndcg@10": 0.2}}) == {}
    assert shared_figures({"metrics": {"ndcg@10": 0.2}}) == {}
    assert shared_figures({"clients": 3, "metrics": {"ndcg@10": 0.2, "mrr@10": None}}) == {"ndcg@10": 0.2}


def test_a_metric_by_round_is_shown_where_enough_members_were_in_the_sum():
    status = coordinator()
    status["progress"]["rounds"] = [
        {"round": 0, "clients": 4, "metrics": {"ndcg@10": 0.1234}},
        {"round": 1, "clients": 2, "metrics": {"ndcg@10": 0.9876}},
    ]
    view = coordinator_view(status, NOW)
    assert row(view, "0") == ["0", "4", "0.1234"]
    assert row(view, "1") == ["1", "2", "–"]
    assert "0.9876" not in shown(view)
    assert "fewer than 3 members" in shown(view)


def test_of_many_jobs_the_open_ones_and_the_last_of_the_others_are_shown():
    done = [{"id": f"weekly.{index}", "model": "ials", "state": "done", "finished_at": NOW - 60} for index in range(30)]
    status = coordinator(jobs=[{"id": "first.0", "model": "ease", "state": "waiting", "reason": "paused"}, *done])
    view = coordinator_view(status, NOW)
    assert row(view, "first.0")[:3] == ["first.0", "ease", "waiting"]
    assert row(view, "weekly.29") == ["weekly.29", "ials", "done", "1", "min", "ago"]
    assert "weekly.20" not in shown(view)
    assert "25 more that are over" in shown(view)
    assert "first.0: paused" in shown(view)


# --- a node -----------------------------------------------------------------------------------------------------------


def test_a_node_says_whether_it_is_connected_and_what_it_does():
    assert node_doing(node()) == ("Connected since 2025-10-09 06:20 UTC; takes part in weekly-1f00 (ials), round 3")
    assert node_doing(node(jobs=[], connection="waiting for approval")) == (
        "Waiting for approval; no job at present: waits for an offer"
    )
    jobs = [
        {"id": "a-1", "model": "ease", "state": "waiting", "waiting": ["a person must approve it"]},
        {"id": "b-2", "model": "mf", "state": "refused", "waiting": ["the model 'mf' is not allowed here"]},
    ]
    assert node_doing(node(jobs=jobs)).endswith("; a-1 (ease) waits; refuses b-2 (mf)")
    view = shown(node_view(node(jobs=jobs), NOW))
    assert "a-1 waits: a person must approve it" in view
    assert "b-2 is refused: the model 'mf' is not allowed here" in view


def test_a_node_shows_its_budget_its_egress_and_its_gain():
    view = shown(node_view(node(gain="you gain +0.0213 ± 0.0100 by joining"), NOW))
    assert "You gain +0.0213 ± 0.0100 by joining." in view
    assert "account 'shop': epsilon 1.302 per user, of 8: 6.7 remains" in view
    assert "in the current period: epsilon 0.4, 1.6 remains" in view
    assert "214 messages, 12.3 MB, the last one 8 s ago; all of them: coterie node egress show" in view
    assert "801 users" in view
    unlimited = {"account": "shop", "spent": 0.5, "limit": None, "remaining": None, "period_spent": None}
    assert "epsilon 0.5 per user, no limit is set" in shown(node_view(node(budget=unlimited), NOW))
    assert "Privacy spent" not in shown(node_view(node(budget=None), NOW))


def test_what_left_last_is_said_where_the_status_tells():
    egress = {"lines": 1, "bytes": 999, "last": {"time": NOW - 9, "contains": "fresh public keys"}}
    assert "1 message, 999 bytes, the last one 9 s ago: fresh public keys;" in shown(
        node_view(node(egress=egress), NOW)
    )
    nothing = node_view(node(egress={"lines": 0, "bytes": 0, "last": None}), NOW)
    assert "0 messages, 0 bytes; all of them" in shown(nothing)


# --- screens ----------------------------------------------------------------------------------------------------------

HOSTILE = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=300)


@settings(max_examples=40, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_text_of_others_breaks_the_screen(name, reason, title):
    status = coordinator(federation=title, address=title, last_error=reason, jobs=[])
    status["members"][0] |= {"name": name, "last_error": reason, "state": "pending", "fingerprint": title}
    status["progress"]["waiting_for"] = [name]
    status["progress"]["events"] = [{"time": NOW - 5, "text": reason}]
    status["jobs"] = [{"id": name, "model": "ease", "state": "failed", "reason": reason, "finished_at": NOW - 1}]
    jobs = [{"id": name, "model": "ease", "state": "waiting", "waiting": [reason]}]
    views = coordinator_view(status, NOW), node_view(node(name=name, federation=title, jobs=jobs, gain=reason), NOW)
    text = [line for view in views for line in lines(view)]
    text += [*line_of(None, status, NOW), *line_of(None, node(jobs=jobs, gain=reason), NOW)]
    assert not [line for line in text if re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", line)]


def test_markup_in_a_name_is_shown_as_it_is():
    status = coordinator(last_error="[bold]x[/bold]; [/nothing]", federation="[red]shop[/red]")
    view = shown(coordinator_view(status, NOW))
    assert "[bold]x[/bold]; [/nothing]" in view
    assert "[red]shop[/red]: coordinator" in view


def test_the_longest_names_stay_whole():
    name, job = "n" * 32, f"{'j' * 64}.999"
    status = coordinator(members=[member(name)], jobs=[{"id": job, "model": "spectral", "state": "running"}])
    view = lines(coordinator_view(status, NOW))
    assert any(name in line for line in view)
    assert "".join("".join(view).split()).count("j" * 20) >= 1
    assert max(map(len, view)) <= 80


def test_colour_adds_nothing_that_words_do_not_say():
    console = Console(width=80, file=io.StringIO(), color_system="truecolor", force_terminal=True, highlight=False)
    console.print(coordinator_view(coordinator(), NOW))
    coloured = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
    assert [line.rstrip() for line in coloured.splitlines()] == lines(coordinator_view(coordinator(), NOW))
    assert "\x1b[" in console.file.getvalue()


# --- line by line -----------------------------------------------------------------------------------------------------


def said(before, after, now=NOW):
    """What the lines say, without their times."""
    return [line.partition(" ")[2] for line in line_of(before, after, now)]


def changed(status, **progress):
    after = deepcopy(status)
    after["progress"] |= progress
    return after


def test_nothing_that_changed_gives_no_line():
    assert line_of(coordinator(), coordinator(), NOW + 60) == []
    assert line_of(node(), node(), NOW + 60) == []


def test_the_first_look_says_how_things_stand():
    assert said(None, coordinator()) == [
        "weekly-1f00.0 (ials), round 3: summing; waits for north and south, 2 min 10 s at most",
        "connected: south, east and west",
        "weekly-1f00.0 is running",
        "weekly-1f00.0 has cost each user epsilon 1.302 so far",
    ]
    assert said(None, node())[0] == "Connected since 2025-10-09 06:20 UTC; takes part in weekly-1f00 (ials), round 3"


def test_each_line_has_its_time_and_events_have_their_own():
    after = changed(coordinator(), waiting_for=["south"], events=[{"time": NOW - 30, "text": "north: timed out; wait"}])
    first, second = line_of(coordinator(), after, NOW)
    assert first == f"{datetime.fromtimestamp(NOW - 30, UTC):%Y-%m-%dT%H:%M:%SZ} north: timed out; wait"
    assert second.startswith(f"{datetime.fromtimestamp(NOW, UTC):%Y-%m-%dT%H:%M:%SZ} weekly-1f00.0")
    assert line_of(after, after, NOW) == []


def test_progress_gives_a_line_a_step():
    before = coordinator()
    assert said(before, changed(before, waiting_for=["south"])) == [
        "weekly-1f00.0 (ials), round 3: summing; waits for south, 2 min 10 s at most"
    ]
    rounds = [*before["progress"]["rounds"], {"round": 3, "clients": 3, "metrics": {"ndcg@10": 0.25}}]
    after = changed(before, rounds=rounds, epsilon_spent=1.7)
    assert said(before, after) == [
        "round 3 is done: 3 members are in the sum; ndcg@10 0.2500",
        "weekly-1f00.0 has cost each user epsilon 1.7 so far",
    ]


def test_the_rounds_of_another_job_begin_anew():
    before = coordinator()
    after = changed(before, job="weekly-1f00.1", rounds=[{"round": 0, "clients": 4}], epsilon_spent=None)
    assert "round 0 is done: 4 members are in the sum" in said(before, after)


def test_members_that_come_go_drop_out_and_ask_give_a_line_each():
    before, after = coordinator(), coordinator()
    after["members"][0]["online_since"] = NOW - 1
    after["members"][1] |= {"online_since": None, "dropouts": 1, "last_error": "no answer; wait"}
    after["members"].append(member("late", "pending", None, fingerprint="ab" * 16))
    found = said(before, after)
    approve = "coterie coordinator approve late --fingerprint FINGERPRINT"
    compare = "compare, with what its operator reads out as FINGERPRINT"
    assert found[:5] == [
        "north is connected",
        "south is not connected any more",
        "south dropped out (once by now)",
        "late is pending",
        f"late asks to be admitted as {'ab' * 16}; {compare}: {approve}",
    ]
    assert found[5:] == ["south: no answer; wait"]


def test_a_name_that_was_revoked_and_given_anew_is_two_members():
    status = coordinator(members=[member("x", "revoked", None, fingerprint="aa"), member("x", fingerprint="bb")])
    assert line_of(status, deepcopy(status), NOW) == []


def test_an_error_is_said_once_though_it_is_an_event_too():
    progress = training()
    progress.fault("south", "no answer")
    after = coordinator(progress=progress.snapshot())
    after["members"][1] |= {"last_error": "no answer", "dropouts": 1}
    found = [line for line in said(coordinator(), after) if "no answer" in line]
    assert found == ["south: no answer; at that node, coterie node status says more"]


def test_jobs_processes_and_reports_give_lines():
    before, after = coordinator(), coordinator()
    after["jobs"][0] |= {"state": "failed", "reason": "too few members"}
    after["children"][0] |= {"restarts": 2, "last_error": "it was ended by signal 9; it is started again"}
    after["gains"] = {"values": {"gained": 0.75}, "noise": {}, "of": 4.0}
    assert said(before, after) == [
        "weekly-1f00.0 is failed: too few members",
        "members reported what joining is worth: gained 0.7500",
        "superlink was started again (twice by now): it was ended by signal 9; it is started again",
    ]
    after["gains"]["of"] = 2.0
    assert "members reported what joining is worth: not shown: of fewer than 3 members" in said(before, after)


def test_a_node_says_what_was_spent_and_what_left():
    before, after = node(), node(gain="you gain +0.1 by joining", connection="cannot reach train.example.org:9443")
    after["budget"] = {**before["budget"], "spent": 1.5, "remaining": 6.5}
    after["egress"] = {"lines": 217, "bytes": 12_345_678 + 2000, "last": "2025-10-09T08:53:20.000Z"}
    after["jobs"][0] |= {"state": "waiting", "waiting": ["outside of the hours 20:00-06:00 (policy.toml)"]}
    after["events"] = [{"time": NOW - 2, "text": "connection lost"}]
    assert said(before, after) == [
        "connection lost",
        "Cannot reach train.example.org:9443; weekly-1f00 (ials) waits",
        "weekly-1f00.0 is waiting: outside of the hours 20:00-06:00 (policy.toml)",
        "account 'shop': epsilon 1.5 spent per user, 6.5 remains",
        "3 messages left this site, 2.0 kB",
        "you gain +0.1 by joining",
    ]


def keys(value):
    """Every key of every object inside."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def test_every_key_of_both_objects_is_documented():
    page = (SOURCES.parent / "docs" / "how-to" / "watch-a-federation.md").read_text("utf-8")
    named = {part for name in re.findall(r"`([\w.]+)`", page) for part in name.split(".")}
    own = training()
    own.event("something")
    gains = {"values": {}, "noise": {}, "of": 3.0}
    assert keys(coordinator(progress=own.snapshot(), gains=gains)) <= named | {"progress"}
    assert keys(node(events=[{"time": NOW, "text": "x"}])) <= named
