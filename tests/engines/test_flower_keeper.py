"""Runs that carry a pump: started when one is needed, and anew when it has gone or does not come."""

import time
from collections.abc import Iterator

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from coterie.engines.flower import keeper as module
from coterie.engines.flower.keeper import PumpKeeper
from coterie.errors import EnvironmentFault
from tests.flowernet import until


class Control:
    """What the keeper asks of SuperLink."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.stopped = 0
        self.ended: set[int] = set()
        self.down = False

    def start_run(self) -> int:
        if self.down:
            raise EnvironmentFault("SuperLink does not answer")
        self.started.append(len(self.started) + 1)
        return self.started[-1]

    def stop_runs(self) -> None:
        self.stopped += 1

    def runs(self, run: int) -> bool:
        return run not in self.ended


class Broker:
    """What the keeper looks at."""

    def __init__(self) -> None:
        self.wanted = self.served = self.greeted = False
        self.admitted: list[int | None] = []

    def admit(self, run: int | None) -> None:
        self.admitted.append(run)
        self.served = self.greeted = False

    def come(self) -> None:
        self.served = self.greeted = True


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def control() -> Control:
    return Control()


@pytest.fixture
def keeper(broker: Broker, control: Control) -> Iterator[PumpKeeper]:
    made = PumpKeeper(broker, control)  # type: ignore[arg-type]
    yield made
    made.stop()


@pytest.mark.usefixtures("keeper")
class TestPumpKeeper:
    def test_a_run_is_started_when_one_is_needed_and_once(self, broker: Broker, control: Control) -> None:
        time.sleep(0.3)
        assert control.started == []
        broker.wanted = True
        until(lambda: broker.admitted == [1], 5)
        time.sleep(0.3)
        broker.come()
        time.sleep(0.3)
        assert (control.started, control.stopped) == ([1], 1)

    def test_one_whose_pump_is_gone_is_replaced_at_once(self, broker: Broker, control: Control) -> None:
        broker.wanted = True
        until(lambda: broker.admitted == [1], 5)
        broker.come()
        broker.served = False
        until(lambda: broker.admitted == [1, 2], 5)

    def test_one_that_ended_before_its_pump_came_is_replaced(
        self, broker: Broker, control: Control, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LOOK", 0.2)
        broker.wanted = True
        until(lambda: broker.admitted == [1], 5)
        time.sleep(0.5)
        assert control.started == [1]
        control.ended.add(1)
        until(lambda: broker.admitted == [1, 2], 5)

    def test_one_whose_pump_does_not_come_is_replaced(
        self, broker: Broker, control: Control, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "COMES", 0.5)
        broker.wanted = True
        until(lambda: broker.admitted == [1, 2], 5)

    def test_nothing_is_expected_of_what_was_lost(self, keeper: PumpKeeper, broker: Broker, control: Control) -> None:
        broker.wanted = True
        until(lambda: broker.admitted == [1], 5)
        keeper.lost()
        until(lambda: broker.admitted == [1, 2], 5)

    def test_a_superlink_that_is_down_is_asked_again(self, broker: Broker, control: Control) -> None:
        control.down = broker.wanted = True
        time.sleep(0.3)
        assert broker.admitted == []
        control.down = False
        until(lambda: broker.admitted == [1], 5)

    def test_a_pump_that_nobody_needs_is_let_go(
        self, broker: Broker, control: Control, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "RESTS", 0.3)
        broker.wanted = True
        until(lambda: broker.admitted == [1], 5)
        broker.come()
        broker.wanted = False
        until(lambda: broker.admitted == [1, None], 5)
