"""All parties of one secure sum in this process: what a simulation runs.

Each client and the server are the state machines of `client` and `server`; they exchange the bytes that would travel,
and share nothing else. Keys of clients and server are made for the occasion.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coterie.errors import PlanError
from coterie.secure.client import Client
from coterie.secure.graph import MAX_FULL
from coterie.secure.keys import Identity
from coterie.secure.rates import Odds, odds, smallest_threshold, sparsest
from coterie.secure.server import Server
from coterie.secure.terms import Phase, Summed, Terms, claim, describe_graph, least_threshold
from coterie.types import Integers

NO_DROPOUTS: Mapping[int, Phase] = {}


@dataclass(frozen=True)
class SessionConfig:
    """What is to be summed, and over whom; see `Terms` and `Summed` in `coterie.secure.terms`.

    `degree` None: the full graph up to 50 clients, beyond the sparsest that keeps its promises at `corrupt_rate` and
    `dropout_rate` (fractions of the clients). `threshold` None: more than two thirds of all clients on the full graph,
    else what the rates ask for. Where both are given they are taken as they are, and `SecureSum.claim` says what they
    are worth.
    """

    job: bytes | str
    round: int
    attempt: int
    model_hash: bytes
    plan_hash: bytes
    clients: int
    ring_bits: int
    size: int
    min_clients: int
    threshold: int | None = None
    degree: int | None = None
    corrupt_rate: float = 0.1
    dropout_rate: float = 0.1

    def terms(self) -> Terms:
        """The terms of the round.

        Raises:
            PlanError: a value is out of range, or no threshold keeps the promises with this degree.
        """
        degree, threshold = self._graph()
        job = self.job.encode() if isinstance(self.job, str) else self.job
        return Terms(
            job=job,
            round=self.round,
            attempt=self.attempt,
            plan_hash=self.plan_hash,
            ring_bits=self.ring_bits,
            clients=self.clients,
            degree=degree,
            threshold=threshold,
            min_clients=self.min_clients,
        )

    def summed(self) -> Summed:
        """What the round sums.

        Raises:
            PlanError: there is nothing to sum, or more than one message takes.
        """
        found = Summed(self.model_hash, self.size)
        found.upload_bytes(self.ring_bits)
        return found

    def odds(self) -> Odds | None:
        """What a graph drawn at random promises at the rates; None for the full graph."""
        terms = self.terms()
        if terms.full:
            return None
        return odds(terms.clients, terms.degree, terms.threshold, self.corrupt_rate, self.dropout_rate)

    def _graph(self) -> tuple[int, int]:
        """Degree and threshold."""
        others, degree, threshold = self.clients - 1, self.degree, self.threshold
        if degree is None:
            found = sparsest(self.clients, *self._rates) if self.clients > MAX_FULL else None
            degree = others if found is None else found[0]
        if not 2 <= degree < others:  # the full graph, or none at all, which the terms refuse
            return degree, threshold or least_threshold(self.clients, degree)
        if threshold is None:
            threshold = smallest_threshold(self.clients, degree, *self._rates)
        elif self.degree is None and not self._enough(degree, threshold):
            threshold = None
        if threshold is None:
            raise PlanError(
                f"degree = {degree} with threshold = {self.threshold or 'any'} does not give {self.clients:,} clients "
                f"2^-40 for privacy and 2^-30 for failure at corrupt_rate = {self.corrupt_rate:g} and dropout_rate = "
                f"{self.dropout_rate:g}; leave both out, or set lower rates"
            )
        return degree, threshold

    def _enough(self, degree: int, threshold: int) -> bool:
        return threshold <= degree and odds(self.clients, degree, threshold, *self._rates).enough

    @property
    def _rates(self) -> tuple[float, float]:
        return self.corrupt_rate, self.dropout_rate


@dataclass(frozen=True)
class SecureSum:
    """An unmasked sum and how it came about.

    `integers` (int64 [size]) are ring elements: modulo 2^64 as they are, modulo 2^32 from 0 to 2^32 - 1; `finishers`
    are the clients in it, ascending. `mask_seconds` is what making, adding and removing masks took, over all parties;
    `client_seconds` is what clients took in all and `server_seconds` the server, without the contributions.
    `upload_bytes` is the most that one client sent. `claim` says against whom single vectors are protected.
    """

    integers: Integers
    finishers: tuple[int, ...]
    mask_seconds: float
    client_seconds: float
    server_seconds: float
    upload_bytes: int
    graph: str
    claim: str


def secure_sum(
    config: SessionConfig, contribution: Callable[[int], Integers], dropouts: Mapping[int, Phase] = NO_DROPOUTS
) -> SecureSum:
    """Sum the clients' vectors by the whole protocol, all parties in this process.

    ``contribution(c)`` is called once for each client that gets so far, in ascending order, right before it masks; it
    gives a flat int64 vector of ``config.size`` ring elements, which is masked and added up before the next is asked
    for. ``dropouts[c]`` is the phase whose message client c does not send. Masking uses as many threads as numba does.

    Raises:
        PlanError: the configuration is impossible, or a contribution has no place in the ring.
        SecureAggregationError: too few clients were left; nothing of the sum is known.
    """
    if any(not 0 <= client < config.clients for client in dropouts):
        raise PlanError(f"dropouts name a client that is not between 0 and {config.clients - 1}")
    session = _Session(config, contribution, dropouts)
    try:
        session.run()
    finally:
        session.close()
    return session.result(config.odds())


class _Session:
    """The parties, what they sent, and how long they took."""

    def __init__(
        self, config: SessionConfig, contribution: Callable[[int], Integers], dropouts: Mapping[int, Phase]
    ) -> None:
        self.contribution, self.dropouts = contribution, dropouts
        self.terms = terms = config.terms()
        self.summed = config.summed()
        identities, owner = [Identity() for _ in range(terms.clients)], Identity()
        roster = tuple(one.public for one in identities)
        enrolled = frozenset(roster)
        started = time.perf_counter()
        self.server = Server(owner, terms, roster)
        opened = time.perf_counter()
        self.clients = [Client(one, owner.public, terms, enrolled) for one in identities]
        self.server_seconds, self.client_seconds = opened - started, time.perf_counter() - opened
        self.mask_seconds = 0.0
        self.sent = [0] * terms.clients
        self.upload = bytearray()  # one client's at a time

    def run(self) -> None:
        inbox = dict.fromkeys(range(self.terms.clients), self.server.configuration)
        inbox = self._phase(Phase.ADVERTISE, inbox, lambda c, message: self.clients[c].advertise(message))
        inbox = self._phase(Phase.SHARE, inbox, lambda c, message: self.clients[c].share(message))
        inbox = self._phase(Phase.MASK, inbox, self._mask)
        inbox = self._phase(Phase.SIGN, inbox, lambda c, message: self.clients[c].sign(message))
        self._phase(Phase.UNMASK, inbox, lambda c, message: self.clients[c].unmask(message))

    def close(self) -> None:
        for client in self.clients:
            client.close()

    def result(self, promised: Odds | None) -> SecureSum:
        finishers = tuple(sorted(self.server.survivors))
        return SecureSum(
            integers=self.server.total(),
            finishers=finishers,
            mask_seconds=self.mask_seconds + self.server.mask_seconds,
            client_seconds=self.client_seconds,
            server_seconds=self.server_seconds,
            upload_bytes=max(self.sent[client] for client in finishers),
            graph=describe_graph(self.terms),
            claim=claim(self.terms, promised),
        )

    def _phase(
        self, phase: Phase, inbox: Mapping[int, bytes], answer: Callable[[int, bytes], bytes | bytearray]
    ) -> dict[int, bytes]:
        """Every client that stays answers its message; the server takes the answers and closes the phase."""
        for client, message in inbox.items():
            if self.dropouts.get(client) is phase:
                continue
            started = time.perf_counter()
            reply = answer(client, message)
            replied = time.perf_counter()
            self.server.receive(client, reply)
            self.client_seconds += replied - started
            self.server_seconds += time.perf_counter() - replied
            self.sent[client] += len(reply)
        started = time.perf_counter()
        outbox = self.server.advance(self.summed if phase is Phase.SHARE else None)
        self.server_seconds += time.perf_counter() - started
        return outbox

    def _mask(self, client: int, shares: bytes) -> bytearray:
        self.clients[client].accept(shares, self.summed)
        self.upload = self.upload or bytearray(self.clients[client].upload_length)
        started = time.perf_counter()
        values = self.contribution(client)
        contributed = time.perf_counter()
        upload = self.clients[client].mask(values, into=self.upload)
        self.client_seconds -= contributed - started
        self.mask_seconds += time.perf_counter() - contributed
        return upload
