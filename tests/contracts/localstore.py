"""What every store of a client promises (`coterie.types.LocalStore`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from coterie.types import LocalStore


class LocalStoreContract(ABC):
    """Inherit, and open the one durable store that lives in a folder."""

    @abstractmethod
    def open(self, folder: Path) -> LocalStore:
        """The store in `folder`, as a new process would open it."""

    def test_nothing_is_there_at_first(self, tmp_path: Path) -> None:
        assert self.open(tmp_path).get("x") is None

    def test_a_staged_value_is_seen_after_the_commit_and_lasts(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        store.stage("x", np.arange(3))
        assert store.get("x") is None
        store.commit(0, 0)
        for reader in (store, self.open(tmp_path)):
            assert _list(reader, "x") == [0, 1, 2]

    def test_what_was_not_committed_does_not_outlive_the_process(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        store.stage("x", np.arange(3))
        assert self.open(tmp_path).get("x") is None

    def test_values_change_together_and_others_stay(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        for name in ("a", "b", "c"):
            store.stage(name, np.array([1]))
        store.commit(0, 0)
        store.stage("a", np.array([2]))
        store.stage("b", np.array([3, 3]))
        assert [_list(store, name) for name in "abc"] == [[1], [1], [1]]
        store.commit(1, 0)
        assert [_list(self.open(tmp_path), name) for name in "abc"] == [[2], [3, 3], [1]]

    def test_the_same_attempt_again_changes_nothing(self, tmp_path: Path) -> None:
        store = self.open(tmp_path)
        store.stage("x", np.array([1]))
        store.commit(3, 1)
        again = self.open(tmp_path)
        again.stage("x", np.array([2]))
        again.commit(3, 1)
        assert _list(again, "x") == [1]
        again.commit(3, 2)  # what the repeated attempt staged is gone with it
        assert _list(self.open(tmp_path), "x") == [1]
        again.stage("x", np.array([3]))
        again.commit(3, 3)
        assert _list(self.open(tmp_path), "x") == [3]

    def test_a_value_is_what_it_was_when_it_was_staged(self, tmp_path: Path) -> None:
        store, value = self.open(tmp_path), np.array([1, 2])
        store.stage("x", value)
        value[0] = 9
        store.commit(0, 0)
        value[1] = 9
        assert _list(store, "x") == _list(self.open(tmp_path), "x") == [1, 2]


def _list(store: LocalStore, name: str) -> list[int]:
    found = store.get(name)
    assert found is not None
    return [int(value) for value in found]
