"""A process that writes to a store until it is killed, and says on stdout what it was told is durable."""

import os
import random
import secrets
import sys
import threading

from coterie.serving.words import Item
from tests.serving.store.shop import event, opening


def say(kind: str, *names: str) -> None:
    """One write for each line, straight into the pipe: what was said has been heard when this is killed."""
    os.write(1, "".join(f"{kind} {name}\n" for name in names).encode())


def main(address: str) -> None:
    with opening(address) as open:
        store = open()

        def send() -> None:
            while True:
                batch = [event("A1", "A2", id=secrets.token_hex(8)) for _ in range(random.choice((1, 1, 30)))]
                store.write_events(batch).result()
                say("event", *(one.id for one in batch))

        def put() -> None:
            while True:
                ids = [secrets.token_hex(8) for _ in range(20)]
                store.put_items(Item(id) for id in ids)
                say("item", *ids)

        def erase() -> None:
            while True:
                user = secrets.token_hex(16)
                store.write_events([event(user=user) for _ in range(5)]).result()
                store.erase_user(user)
                say("erased", user)

        threads = [threading.Thread(target=task) for task in (send, send, send, put, erase)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(sys.argv[1])
