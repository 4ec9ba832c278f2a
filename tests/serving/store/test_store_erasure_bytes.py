"""After an erasure, the bytes of every file of the deployment are looked through: nothing of the user is in them."""

import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coterie.errors import EnvironmentFault
from coterie.serving.store import erasure
from coterie.serving.words import Event, EventLine
from tests.serving.store.shop import DAY, SOME_TIME, event, held, ids, kept, until, waiting, write


def found(folder: Path, words) -> set[str]:
    """Which of the words stand anywhere in the folder, and how their files are called."""
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return {word for word in words if word.encode() in content}


def word(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


class Shop:
    """Users with events, whose ids and baskets are told apart from everything else in a file."""

    def __init__(self, users: int, seed: int = 1) -> None:
        self._draw = random.Random(seed)
        self.words: dict[str, set[str]] = {word("user"): set() for _ in range(users)}
        for user, words in self.words.items():
            words.add(user)

    def events(self, number: int) -> list[Event]:
        """Events of users by chance, with as many lines as may be."""
        return [self._event(*self._draw.choice(list(self.words.items()))) for _ in range(number)]

    def _event(self, user: str, words: set[str]) -> Event:
        id, basket = word("event"), word("basket")
        words |= {id, basket}
        lines = tuple(EventLine(f"A{self._draw.randrange(1000)}") for _ in range(self._draw.choice([1, 1, 2, 9])))
        return Event(id, "purchase", SOME_TIME + self._draw.randrange(DAY), lines, user, basket)


def test_nothing_of_the_erased_is_in_any_file(small, folder):
    shop = Shop(300)
    for _ in range(20):
        write(small, *shop.events(400))
    gone = list(shop.words)[:5]
    assert found(folder, shop.words[gone[0]]) == shop.words[gone[0]]  # so that the search is one
    for user in gone:
        assert small.erase_user(user).erased["events"] == (len(shop.words[user]) - 1) // 2
        assert found(folder, shop.words[user]) == set()
    assert found(folder, shop.words[next(reversed(shop.words))]) != set()


def test_nothing_stays_where_rows_have_been_moved_about(small, folder):
    """Retention and objections make pages merge and split; SQLite leaves copies of rows in what is unused then."""
    shop = Shop(400)
    users = list(shop.words)
    for start in range(0, 200, 20):
        write(small, *shop.events(800))
        for user in users[start : start + 20]:
            small.set_consent(user, allowed=False)
    with small._storage.writing() as connection:
        connection.exec_driver_sql("DELETE FROM serve_event WHERE id < 5000")
    for user in users[380:]:
        small.set_consent(user, allowed=False)  # their bytes may still be there
    small.erase_user(users[0])
    for user in [*users[:200], *users[380:]]:
        assert found(folder, shop.words[user]) == set()


def test_nothing_stays_when_others_read_and_write_all_the_time(small, folder):
    shop, stop = Shop(50), threading.Event()
    write(small, *shop.events(3000))
    gone = list(shop.words)[:10]
    for user in gone:
        del shop.words[user]
    gone_words = Shop(0)
    gone_words.words = {user: {user} for user in gone}
    write(small, *gone_words.events(200))

    def read():
        while not stop.is_set():
            assert kept(small).height > 0

    def send():
        while not stop.is_set():
            small.history(next(iter(shop.words)))
            write(small, *shop.events(5))

    with ThreadPoolExecutor(4) as pool:
        busy = [pool.submit(task) for task in (read, read, send, send)]
        for user in gone:
            small.erase_user(user)
            assert found(folder, gone_words.words[user]) == set()
        stop.set()
        for one in busy:
            one.result()


def test_an_objection_has_its_bytes_removed_with_the_next_pruning(small, folder):
    shop = Shop(20)
    write(small, *shop.events(500))
    user = next(iter(shop.words))
    small.set_consent(user, allowed=False)
    small.prune(SOME_TIME)
    assert found(folder, shop.words[user]) == set()


def test_what_a_killed_process_had_not_removed_goes_with_the_next_pruning(small, open_small, folder, monkeypatch):
    shop = Shop(20)
    write(small, *shop.events(500))
    user = next(iter(shop.words))

    def killed(*_):
        raise EnvironmentFault("no space")

    with monkeypatch.context() as patched:
        patched.setattr(erasure, "scrub", killed)
        with pytest.raises(EnvironmentFault, match="no space"):
            small.erase_user(user)
    assert small.receipts() == []  # a receipt says that it is done
    small.close()
    again = open_small()
    again.prune(SOME_TIME)
    assert found(folder, shop.words[user]) == set()


def test_erasures_that_wait_share_the_work(small, folder, monkeypatch):
    shop, written = Shop(30), []
    write(small, *shop.events(600))
    monkeypatch.setattr(erasure, "_empty_log", lambda connection: written.append(1) or empty(connection))
    with ThreadPoolExecutor(10) as pool:
        with held(small):
            erasing = [pool.submit(small.erase_user, user) for user in list(shop.words)[:10]]
            until(lambda: waiting(small) == 10)
        assert all(one.result(60).erased["events"] for one in erasing)
    assert len(written) == 1
    for user in list(shop.words)[:10]:
        assert found(folder, shop.words[user]) == set()


empty = erasure._empty_log


def test_whoever_reads_without_end_is_named_and_nothing_is_claimed(small, folder, monkeypatch):
    write(small, event(user="ann", id="e"))
    small._storage._engine.dispose()
    with small._storage.reading() as reader:
        reader.exec_driver_sql("SELECT * FROM serve_event").all()
        monkeypatch.setattr(
            erasure,
            "_empty_log",
            lambda connection: (connection.exec_driver_sql("PRAGMA busy_timeout = 50"), empty(connection)),
        )
        with pytest.raises(EnvironmentFault, match="end that, and erase again"):
            small.erase_user("ann")
    assert small.receipts() == []
    assert ids(small) == []
    monkeypatch.undo()
    assert small.erase_user("ann").erased["events"] == 0
    assert found(folder, ["ann"]) == set()
