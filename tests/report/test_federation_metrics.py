"""What Prometheus reads of a coordinator: over real HTTP, by its own parser, and nothing about one member's model."""

import re
import socket
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from copy import deepcopy
from pathlib import Path

import pytest

from coterie.errors import EnvironmentFault, MissingExtra, PeerError
from coterie.federation.config import FederationConfig
from coterie.report.federation_metrics import FAMILIES, FederationCollector, quality, serve_metrics
from coterie.report.federation_words import PHASES

NOW = 1_760_000_000.0


def member(name, state="approved", online=NOW - 60, **more):
    counts = {"sent_bytes": 1000, "received_bytes": 20, "dropouts": 0}
    return {"name": name, "fingerprint": "ab", "state": state, "online_since": online, **counts, **more}


STATUS = {
    "federation": 'green "grocers"\n',
    "fingerprint": "3f2a9c0e71b24d5f8a6e0c1d2b3a4958",
    "address": "train.example.org:9443",
    "running": True,
    "since": NOW - 600,
    "roster_version": 4,
    "progress": {
        "job": "weekly.0",
        "phase": "summing",
        "what": "model",
        "round": 3,
        "attempt": 1,
        "waiting_for": ["north"],
        "deadline": NOW + 130,
        "epsilon_spent": 1.302,
        "rounds": [{"round": 0, "clients": 4}, {"round": 1, "clients": 3}],
    },
    "members": [
        member("north", dropouts=2),
        member("south", online=None),
        member("east", sent_bytes=7),
        member("late", "pending", None),
    ],
    "jobs": [{"id": "weekly.0", "state": "running"}, {"id": "weekly.1", "state": "waiting"}],
    "children": [{"name": "superlink", "pid": 1, "restarts": 2}, {"name": "superexec", "pid": None, "restarts": 0}],
    "gains": {"values": {"gained": 0.75, "gain": 0.02}, "noise": {"gained": 0.0, "gain": 0.002}, "of": 4.0},
}


@pytest.fixture
def serve():
    pytest.importorskip("prometheus_client")
    running = []

    def start(status, **more):
        running.append(serve_metrics(status if callable(status) else lambda: status, "127.0.0.1", 0, **more))
        return running[-1]

    yield start
    for stop in running:
        stop()


def read(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def parsed(url):
    """Families by name, and all samples as (name, labels) -> value."""
    from prometheus_client.parser import text_string_to_metric_families

    families = {family.name: family for family in text_string_to_metric_families(read(url)[1])}
    samples = [sample for family in families.values() for sample in family.samples]
    found = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    assert len(found) == len(samples)  # Prometheus refuses a scrape that says anything twice
    return families, found


def changed(**progress):
    status = deepcopy(STATUS)
    status["progress"] |= progress
    return status


def test_every_family_is_there_with_its_type_and_its_help(serve):
    families, _ = parsed(serve(STATUS).url)
    expected = {family.name: family for family in (*FAMILIES, *quality(3))}
    assert set(families) == set(expected)
    assert all(families[name].type == family.kind for name, family in expected.items())
    assert all(families[name].documentation == family.help for name, family in expected.items())
    assert all(name.startswith("coterie_") and family.help.endswith(".") for name, family in expected.items())
    counters = {"coterie_sent_bytes", "coterie_received_bytes", "coterie_dropouts", "coterie_process_restarts"}
    assert {name for name, family in families.items() if family.type == "counter"} == counters


def test_the_numbers_are_those_of_the_status(serve):
    _, found = parsed(serve(STATUS).url)
    plain = {name: value for (name, labels), value in found.items() if not labels}
    assert {name: plain[name] for name in plain if name != "coterie_deadline_seconds_left"} == {
        "coterie_running": 1,
        "coterie_start_time_seconds": NOW - 600,
        "coterie_roster_version": 4,
        "coterie_round": 3,
        "coterie_attempt": 1,
        "coterie_rounds_done": 2,
        "coterie_round_members": 3,
        "coterie_epsilon_spent": 1.302,
        "coterie_members_online": 2,
    }
    assert found["coterie_sent_bytes_total", (("member", "east"),)] == 7
    assert found["coterie_received_bytes_total", (("member", "north"),)] == 20
    assert found["coterie_dropouts_total", (("member", "north"),)] == 2
    assert found["coterie_member_online", (("member", "south"),)] == 0
    assert found["coterie_member_waited_for", (("member", "north"),)] == 1
    assert found["coterie_member_waited_for", (("member", "east"),)] == 0
    assert found["coterie_member_online_since_seconds", (("member", "east"),)] == NOW - 60
    assert ("coterie_member_online_since_seconds", (("member", "south"),)) not in found
    assert found["coterie_members", (("state", "approved"),)] == 3
    assert found["coterie_members", (("state", "revoked"),)] == 0
    assert found["coterie_jobs", (("state", "waiting"),)] == 1
    assert found["coterie_process_up", (("process", "superexec"),)] == 0
    assert found["coterie_process_restarts_total", (("process", "superlink"),)] == 2
    info = dict(next(labels for name, labels in found if name == "coterie_federation_info"))
    assert info["federation"] == 'green "grocers"\n'


@pytest.mark.parametrize(
    ("said", "word"),
    [
        *PHASES.items(),
        ("waiting for members: round 3", "wait"),
        ("waiting for 3 members to connect (2 are)", "wait"),
        ("juggling", "other"),
        (None, "idle"),
    ],
)
def test_the_phase_is_one_of_a_closed_set(said, word):
    pytest.importorskip("prometheus_client")
    found = {family.name: family for family in FederationCollector(lambda: changed(phase=said)).collect()}
    states = {sample.labels["phase"]: sample.value for sample in found["coterie_phase"].samples}
    assert set(states) == {*PHASES.values(), "other"}
    assert [phase for phase, value in states.items() if value] == [word]


def test_what_is_not_known_is_absent_and_never_zero(serve):
    seen = []
    _, found = parsed(serve(lambda: seen.append(1) or changed(epsilon_spent=None, deadline=None, rounds=[])).url)
    names = {name for name, _ in found}
    assert not names & {"coterie_epsilon_spent", "coterie_deadline_seconds_left", "coterie_round_members"}
    assert len(seen) == 1
    _, found = parsed(serve({}).url)
    assert found["coterie_running", ()] == 0
    assert "coterie_round" not in {name for name, _ in found}


def test_a_round_is_one_of_the_training():
    pytest.importorskip("prometheus_client")
    found = {family.name: family for family in FederationCollector(lambda: changed(what="metrics", round=0)).collect()}
    assert found["coterie_round"].samples == []


def test_the_deadline_runs_down_to_zero_and_ends_with_the_waiting():
    pytest.importorskip("prometheus_client")

    def left(now, **progress):
        families = FederationCollector(lambda: changed(**progress), clock=lambda: now).collect()
        return [s.value for f in families if f.name == "coterie_deadline_seconds_left" for s in f.samples]

    assert left(NOW) == [130]
    assert left(NOW + 30.5) == [99.5]
    assert left(NOW + 500) == [0]
    assert left(NOW, waiting_for=[]) == []


# --- quality ----------------------------------------------------------------------------------------------------------


def test_quality_is_told_as_a_sum_over_enough_members_alone(serve):
    _, found = parsed(serve(STATUS).url)
    reported = {labels[0][1]: value for (name, labels), value in found.items() if name == "coterie_reported"}
    assert reported == {"gained": 0.75, "gain": 0.02}
    assert found["coterie_reported_noise", (("metric", "gain"),)] == 0.002
    few = {**STATUS, "gains": {**STATUS["gains"], "of": 2.0}}
    assert not any(name.startswith("coterie_reported") for name, _ in parsed(serve(few).url)[1])
    assert not any(name.startswith("coterie_reported") for name, _ in parsed(serve(STATUS, least=5).url)[1])


def test_nothing_of_a_members_model_is_told_even_where_a_status_has_it(serve):
    status = deepcopy(STATUS)
    for one in status["members"]:
        one |= {"ndcg@10": 0.4242, "gain": 0.4242, "metrics": {"ndcg@10": 0.4242}}
    status["gains"]["values"] |= {"north": 0.4242, "gain of north": 0.4242, "north:ndcg@10": 0.4242}
    status["gains"]["noise"] |= {"north": 0.4242}
    status["progress"]["rounds"][-1] |= {"metrics": {"north": 0.4242}, "per_client": {"north": 0.4242}}
    text = read(serve(status).url)[1]
    assert "0.4242" not in text
    families, _ = parsed(serve(status).url)
    of_members = {name for name, family in families.items() for s in family.samples if "member" in s.labels}
    assert of_members == {family.name for family in FAMILIES if "member" in family.labels}
    assert not {"coterie_reported", "coterie_reported_noise"} & of_members


def test_sums_over_users_keep_their_scheme(serve):
    sums = {"values": {"federated:ndcg@10": 0.12, "alone:ndcg@10": 0.1}, "of": 40.0}
    _, found = parsed(serve({**STATUS, "gains": sums}).url)
    assert found["coterie_reported", (("metric", "federated:ndcg@10"),)] == 0.12


def test_a_name_that_was_revoked_and_given_anew_is_told_once(serve):
    members = [member("x", dropouts=3), member("x", "revoked", None, dropouts=9)]
    _, found = parsed(serve({**STATUS, "members": members}).url)
    assert found["coterie_dropouts_total", (("member", "x"),)] == 3
    assert found["coterie_members", (("state", "revoked"),)] == 1


# --- the server -------------------------------------------------------------------------------------------------------


def test_it_speaks_both_formats_that_prometheus_asks_for(serve):
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    url = serve(STATUS).url
    assert read(url)[0].startswith("text/plain")
    kind, text = read(url, Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert {family.name for family in text_string_to_metric_families(text)} >= {"coterie_phase", "coterie_sent_bytes"}


@pytest.mark.parametrize(
    ("method", "path", "code"), [("GET", "/", 404), ("GET", "/metrics/x", 404), ("POST", "/metrics", 405)]
)
def test_there_is_one_path_and_it_is_read_only(serve, method, path, code):
    server = serve(STATUS)
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    with refused.value as answer:
        assert answer.code == code
        assert b"metrics" in answer.read()


def test_a_status_that_cannot_be_had_is_down_with_the_reason(serve, capfd):
    def status():
        raise PeerError("the coordinator does not answer; start it")

    with pytest.raises(urllib.error.HTTPError) as refused:
        read(serve(status).url)
    with refused.value as answer:
        assert answer.code == 503
        assert answer.read() == b"the coordinator does not answer; start it\n"
    assert capfd.readouterr() == ("", "")


def test_readers_at_once_do_not_wait_for_one_that_says_nothing(serve):
    server = serve(STATUS)
    with socket.create_connection(("127.0.0.1", server.port)):
        results = []
        threads = [threading.Thread(target=lambda: results.append(read(server.url))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert len(results) == 5


def test_it_stops_gives_its_port_back_and_says_so_twice_if_asked(serve):
    server = serve(STATUS)
    server()
    server()
    with pytest.raises(urllib.error.URLError):
        read(server.url)
    again = serve_metrics(lambda: STATUS, "127.0.0.1", server.port)
    try:
        assert "coterie_running 1.0" in read(again.url)[1]
    finally:
        again()


def test_a_port_that_is_taken_is_one_sentence(serve):
    port = serve(STATUS).port
    with pytest.raises(EnvironmentFault, match=rf"127\.0\.0\.1:{port}: .*in use; choose another metrics_port"):
        serve_metrics(lambda: STATUS, "127.0.0.1", port)
    with pytest.raises(EnvironmentFault, match=r"metrics cannot be served at 203\.0\.113\.7:0: .*assign"):
        serve_metrics(lambda: STATUS, "203.0.113.7", 0)


def test_ipv6_is_served_where_there_is_some():
    pytest.importorskip("prometheus_client")
    try:
        stop = serve_metrics(lambda: STATUS, "::1", 0)
    except EnvironmentFault:
        pytest.skip("this machine has no IPv6")
    try:
        assert stop.url.startswith("http://[::1]:")
        assert "coterie_running 1.0" in read(stop.url)[1]
    finally:
        stop()


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "prometheus_client"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtra, match=r"Prometheus metrics needs .*coterie\[flower\]"):
        serve_metrics(lambda: STATUS, "127.0.0.1", 0)
    with pytest.raises(MissingExtra, match="Prometheus metrics"):
        list(FederationCollector(lambda: STATUS).collect())


def test_every_metric_and_phase_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "watch-a-federation.md").read_text("utf-8")
    named = set(re.findall(r"`([^`\n]+)`", page))
    for family in (*FAMILIES, *quality(3)):
        assert (f"{family.name}_total" if family.kind == "counter" else family.name) in named
        assert set(family.labels) <= named
    assert {*PHASES.values(), "other"} <= named
    assert {phase for phase in PHASES if phase != "waiting for"} <= named


def test_the_settings_of_the_page_are_valid():
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "watch-a-federation.md").read_text("utf-8")
    shown = re.search(r'^```\{\.toml title="federation.toml"\}\n(.*?)^```', page, re.DOTALL | re.MULTILINE)
    port = FederationConfig.model_validate(tomllib.loads(shown[1])).federation.metrics_port
    assert f"http://127.0.0.1:{port}/metrics" in page
