"""The daemon's side of the pump, with a pump that the test plays."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from coterie.engines.flower import broker as module
from coterie.engines.flower.broker import Broker, PumpSession
from coterie.engines.flower.control import Seat
from coterie.engines.flower.frames import pack, unpack
from coterie.federation.transport import never
from tests.flowernet import until

RUN = 7


class Pump:
    """Takes what is to be sent, and answers when it is told to."""

    def __init__(self, broker: Broker, run: int = RUN) -> None:
        self.session: PumpSession = broker.session()
        self.run = run

    def take(self) -> dict[str, Any]:
        head, body = unpack(self.session.answer(pack({"do": "take", "run": self.run})))
        return head | {"body": body}

    def sent(self) -> dict[str, Any]:
        """The next message that is to be sent."""
        found: list[dict[str, Any]] = []
        until(lambda: found.append(self.take()) or found[-1]["do"] == "send", 5)  # type: ignore[func-returns-value]
        return found[-1]

    def nothing(self, seconds: float = 0.1) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.take()["do"] == "send":
                return False
        return True

    def reply(self, key: list[Any], body: bytes) -> None:
        self.session.answer(pack({"do": "reply", "run": self.run, "key": key}, body))

    def fail(self, key: list[Any], why: str) -> None:
        self.session.answer(pack({"do": "failed", "run": self.run, "key": key, "why": why}))


class Asked:
    """An exchange on a thread of its own."""

    def __init__(
        self, broker: Broker, messages: dict[str, bytes], enough: Callable[[frozenset[str]], bool] = never
    ) -> None:
        self.got: list[tuple[str, bytes]] = []
        self._exchange = broker.exchange(messages, 10.0, enough)
        self._thread = threading.Thread(target=lambda: self.got.extend(self._exchange))
        self._thread.start()

    def done(self) -> list[tuple[str, bytes]]:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.got


@pytest.fixture
def seats() -> dict[str, Seat]:
    return {"anna": Seat(1, 100.0), "bert": Seat(2, 100.0)}


@pytest.fixture
def broker(seats: dict[str, Seat]) -> Iterator[Broker]:
    made = Broker(lambda: seats)
    made.admit(RUN)
    return made


def test_messages_go_out_and_answers_come_back(broker: Broker) -> None:
    pump, asked = Pump(broker), Asked(broker, {"anna": b"a", "bert": b"b"})
    out = [pump.sent(), pump.sent()]
    assert [(one["node"], one["body"]) for one in out] == [(1, b"a"), (2, b"b")]
    assert 10 < out[0]["ttl"] < 100
    assert sorted(pump.take()["open"]) == sorted(one["key"] for one in out)
    for one in reversed(out):
        pump.reply(one["key"], one["body"].upper())
    assert asked.done() == [("bert", b"B"), ("anna", b"A")]
    assert not broker.wanted
    assert pump.take() == {"do": "watch", "open": [], "body": b""}


def test_it_ends_when_that_is_enough_or_the_time_is_over(broker: Broker) -> None:
    pump, asked = Pump(broker), Asked(broker, {"anna": b"a", "bert": b"b"}, lambda answered: len(answered) == 1)
    pump.reply(pump.sent()["key"], b"A")
    assert asked.done() == [("anna", b"A")]
    begun = time.monotonic()
    assert list(broker.exchange({"anna": b"a"}, 0.3)) == []
    assert time.monotonic() - begun < 3
    assert list(broker.exchange({}, 10.0)) == []


def test_an_answer_counts_once_and_only_in_its_own_exchange(broker: Broker) -> None:
    pump, first = Pump(broker), Asked(broker, {"anna": b"1", "bert": b"1"}, lambda answered: "anna" in answered)
    old = {one["node"]: one["key"] for one in (pump.sent(), pump.sent())}
    pump.reply(old[1], b"x")
    pump.reply(old[1], b"y")
    assert first.done() == [("anna", b"x")]
    second = Asked(broker, {"bert": b"2"})
    new = pump.sent()["key"]
    pump.reply(old[2], b"late")
    pump.reply(new, b"in time")
    assert second.done() == [("bert", b"in time")]


def test_who_is_not_connected_is_sent_its_message_when_it_is(broker: Broker, seats: dict[str, Seat]) -> None:
    seats["bert"] = Seat(2, None)
    pump, asked = Pump(broker), Asked(broker, {"bert": b"b", "cleo": b"c"}, lambda answered: "bert" in answered)
    assert pump.nothing()
    seats["bert"] = Seat(2, time.time())
    pump.reply(pump.sent()["key"], b"B")
    assert asked.done() == [("bert", b"B")]


def test_who_connects_anew_is_sent_its_message_again(broker: Broker, seats: dict[str, Seat]) -> None:
    pump, asked = Pump(broker), Asked(broker, {"anna": b"a"})
    first = pump.sent()
    assert pump.nothing()
    seats["anna"] = Seat(1, time.time() + 0.01)
    assert pump.sent() == first | {"ttl": pytest.approx(first["ttl"], abs=5)}
    seats["anna"] = Seat(1, time.time() - 1)
    assert pump.nothing()
    pump.reply(first["key"], b"A")
    assert asked.done() == [("anna", b"A")]


def test_what_failed_is_sent_again_after_a_pause(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", (0.2, 30.0))
    pump, asked = Pump(broker), Asked(broker, {"anna": b"a"})
    key = pump.sent()["key"]
    begun = time.monotonic()
    pump.fail(key, "the node was gone")
    assert broker.troubles == {"anna": "the node was gone"}
    assert pump.sent()["body"] == b"a"
    assert time.monotonic() - begun > 0.15
    pump.fail(key, "and again")
    assert pump.nothing(0.3)  # the pause has doubled
    pump.reply(pump.sent()["key"], b"A")
    assert asked.done() == [("anna", b"A")]
    assert broker.troubles == {}


def test_a_long_silence_is_taken_for_a_loss(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.2)
    pump, asked = Pump(broker), Asked(broker, {"anna": b"a"})
    assert pump.sent()["key"] == pump.sent()["key"]
    pump.reply(pump.sent()["key"], b"A")
    assert asked.done() == [("anna", b"A")]


def test_what_a_killed_superlink_may_have_lost_is_sent_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOUBT", 0.2)
    pump, asked = Pump(broker), Asked(broker, {"anna": b"a"})
    key = pump.sent()["key"]
    broker.doubt()
    assert pump.nothing(0.1)
    assert pump.sent()["key"] == key
    pump.reply(key, b"A")
    assert asked.done() == [("anna", b"A")]


def test_a_new_pump_sends_what_the_old_one_had_in_hand(broker: Broker) -> None:
    old, asked = Pump(broker), Asked(broker, {"anna": b"a"})
    first = old.sent()
    assert broker.served
    old.session.close()
    assert (broker.served, broker.greeted, broker.wanted) == (False, True, True)
    broker.admit(RUN + 1)
    assert not broker.greeted
    new = Pump(broker, RUN + 1)
    assert new.sent()["key"] == first["key"]
    assert broker.served
    assert old.take()["do"] == "end"
    old.reply(first["key"], b"forged or late")
    new.reply(first["key"], b"A")
    assert asked.done() == [("anna", b"A")]


def test_two_exchanges_at_once_do_not_mix(broker: Broker) -> None:
    pump, one, two = Pump(broker), Asked(broker, {"anna": b"1"}), Asked(broker, {"anna": b"2"})
    for out in (pump.sent(), pump.sent()):
        pump.reply(out["key"], out["body"] * 2)
    assert sorted([*one.done(), *two.done()]) == [("anna", b"11"), ("anna", b"22")]
    assert one.done() != two.done()
