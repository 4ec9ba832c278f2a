"""One federation of real processes for all tests of the network: it takes seconds to start."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.flowernet import Loopback

MESSAGE_BYTES = 20_000_000


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Loopback]":
    """Anna, bert and cleo, connected; bert's answers can be held, and cleo stands behind a relay."""
    pytest.importorskip("flwr", reason="needs the extra 'flower'")
    from coterie.engines.flower.network import Limits
    from tests.flowernet import NAMES, Loopback

    made = Loopback(tmp_path_factory.mktemp("federation"), Limits(message_bytes=MESSAGE_BYTES))
    try:
        for name in NAMES:
            made.add(name)
        made.online(*NAMES)
        yield made
    finally:
        made.stop()
