"""Kernels for matrix factorisation by stochastic gradient descent: local training of many clients at once.

Parameters stand in rows of `d + 1` numbers: the `d` factors and then the bias, of an item as of a user. What a client
learns is quantised as soon as it is known: no vector per user outlives its turn, and threads add integers to sums of
their own, so that the result depends on neither threads nor blocks nor neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from coterie.types import Floats, Integers, Items, Pointers, Scores

MARGIN = 1.0 - 1e-9  # covers the float64 rounding of a norm, so that clipped integers never exceed their bound
DIVERGED = 1e4  # targets are a few units wide: rows beyond this are on their way to infinity
HUGE = 3e38  # square of a change that nothing can be made of: what float32 holds
SUM_BYTES = 1 << 29  # sums that threads may keep beside the first one's; larger catalogues get fewer threads
# Sums may be reordered (which lets them be vectorised), but NaN and infinity keep their meaning: divergence is noticed.
FAST = {"reassoc", "contract", "nsz", "arcp"}


class Ratings(NamedTuple):
    """Interactions by user: those of user u are ``ptr[u]:ptr[u + 1]`` of `item` (int32) and `target` (float32).

    With negatives the items of a user must be distinct and ascending.
    """

    ptr: Pointers
    item: Items
    target: Scores


class Descent(NamedTuple):
    """How a client trains: step size, penalty per step, epochs, unobserved items per interaction and their target.

    `stride` is how many times its single step per epoch a client reports. `key` starts the client's random numbers,
    together with its data.
    """

    learning_rate: float
    regularisation: float
    epochs: int
    negatives: int
    negative_target: float
    stride: float
    key: int


class Bounds(NamedTuple):
    """What one client may contribute: bounds in real units and ring units per 1, of the delta and of the weight."""

    delta_l2: float
    delta_linf: float
    delta_scale: float
    weight_l2: float
    weight_linf: float
    weight_scale: float
    by_interactions: bool


def add_updates(
    ratings: Ratings,
    one_client: bool,
    items: Scores,
    users: Scores,
    descent: Descent,
    bounds: Bounds,
    delta: Integers,
    weight: Integers,
) -> None:
    """Train each client from the item rows `items` (float32 [items, d + 1]) and add what it learned, quantised.

    A client is the whole block (`one_client`) or each user by itself. Adds the clipped weighted differences to `delta`
    (int64 [items * (d + 1)]) and the client's weight to `weight` (int64 [items]) at every item that it touched; moves
    the rows of `users` (float32 [users, d + 1]) in place. A client that diverges, so that a number is not finite or
    beyond `DIVERGED`, adds nothing, and its users' rows stay as they were.
    """
    clients = np.array([0, len(users)], np.int64) if one_client else np.arange(len(users) + 1, dtype=np.int64)
    owner = np.repeat(np.arange(len(users)), np.diff(ratings.ptr))
    workers = 1 if one_client else _workers(ratings, descent, items)
    if workers == 1:  # waking the other threads costs more than a small client does
        _train_some(0, len(clients) - 1, clients, owner, ratings, items, users, descent, bounds, delta, weight)
        return
    tasks = _shares(ratings, clients, workers)
    extra_delta = np.zeros((workers - 1, len(delta)), np.int64)
    extra_weight = np.zeros((workers - 1, len(weight)), np.int64)
    _train_all(tasks, clients, owner, ratings, items, users, descent, bounds, delta, weight, extra_delta, extra_weight)
    for more_delta, more_weight in zip(extra_delta, extra_weight, strict=True):
        delta += more_delta
        weight += more_weight


def descend(ratings: Ratings, items: Floats, users: Floats, descent: Descent, order: Integers) -> None:
    """One epoch of plain stochastic gradient descent over the interactions `order`, in place, in float64.

    The centralised model: nothing is clipped or quantised, item rows are shared by everybody.
    """
    owner = np.repeat(np.arange(len(users)), np.diff(ratings.ptr))
    _descend(owner, ratings, items, users, descent, order)


def _workers(ratings: Ratings, descent: Descent, items: Scores) -> int:
    """Threads that are worth a sum of their own: it is cleared and added once, and must fit in memory."""
    steps = len(ratings.item) * (1 + descent.negatives) * descent.epochs
    room = 1 + SUM_BYTES // (8 * (items.size + len(items)) + 1)
    return int(max(1, min(numba.get_num_threads(), room, steps // (len(items) + 1))))


def _shares(ratings: Ratings, clients: Pointers, workers: int) -> Pointers:
    """Clients of each worker: `workers` runs of about as many interactions, int64 [workers + 1]."""
    ends = ratings.ptr[clients]
    wanted = np.arange(1, workers) * (ends[-1] - ends[0]) // workers
    inner = np.searchsorted(ends, wanted, side="left")
    return np.concatenate([[0], inner, [len(clients) - 1]]).astype(np.int64)


@numba.njit(cache=True, parallel=True)
def _train_all(  # type: ignore[no-untyped-def]
    tasks, clients, owner, ratings, items, users, descent, bounds, delta, weight, extra_delta, extra_weight
):
    for t in numba.prange(len(tasks) - 1):
        # Thread-disjoint: worker t owns its clients' user rows and its own pair of sums.
        _train_some(
            tasks[t],
            tasks[t + 1],
            clients,
            owner,
            ratings,
            items,
            users,
            descent,
            bounds,
            delta if t == 0 else extra_delta[t - 1],
            weight if t == 0 else extra_weight[t - 1],
        )


@numba.njit(cache=True)
def _train_some(first, last, clients, owner, ratings, items, users, descent, bounds, delta, weight):  # type: ignore[no-untyped-def]
    longest, most_users = 0, 0
    for c in range(first, last):
        most_users = max(most_users, clients[c + 1] - clients[c])
        longest = max(longest, ratings.ptr[clients[c + 1]] - ratings.ptr[clients[c]])
    most = min(len(items), longest * (1 + descent.negatives * descent.epochs))
    slot = np.full(len(items), -1, np.int32)  # where in `local` an item's row is
    touched = np.empty(most, np.int32)
    steps = np.zeros(most, np.int64)  # how many were taken along each row
    local = np.empty((most, items.shape[1]), np.float32)
    order = np.empty(longest, np.int64)
    before = np.empty((most_users, users.shape[1]), np.float32)
    for c in range(first, last):
        start, stop = ratings.ptr[clients[c]], ratings.ptr[clients[c + 1]]
        if start == stop:
            continue
        own = users[clients[c] : clients[c + 1]]
        before[: len(own)] = own
        n = _train_one(start, stop, owner, ratings, items, users, descent, slot, touched, steps, local, order)
        added = _settled(local[:n]) and _settled(own)
        if added:
            _stretch(n, touched, steps, local, items, descent)
            added = _add_client(touched[:n], local, stop - start, bounds, delta, weight)
        if not added:
            own[:] = before[: len(own)]
        for s in range(n):
            slot[touched[s]] = -1
            steps[s] = 0


@numba.njit(cache=True)
def _train_one(  # type: ignore[no-untyped-def]
    start, stop, owner, ratings, items, users, descent, slot, touched, steps, local, order
):
    """Epochs of one client over its interactions; returns how many items it touched."""
    random = _data_hash(np.uint64(descent.key), start, stop, ratings)
    rate, ridge = np.float32(descent.learning_rate), np.float32(descent.regularisation)
    missing = np.float32(descent.negative_target)
    count = stop - start
    n = 0
    for e in range(start, stop):
        order[e - start] = e
        n = _touch(ratings.item[e], n, items, slot, touched, local)
    for _ in range(descent.epochs):
        for k in range(count - 1, 0, -1):  # Fisher-Yates
            random += np.uint64(0x9E3779B97F4A7C15)
            at = _below(random, k + 1)
            order[k], order[at] = order[at], order[k]
        for k in range(count):
            e = order[k]
            u = owner[e]
            s = slot[ratings.item[e]]
            steps[s] += 1
            _step(local, s, users, u, ratings.target[e], rate, ridge)
            a, b = ratings.ptr[u], ratings.ptr[u + 1]
            if b - a == len(items):
                continue  # nothing is unobserved
            for _ in range(descent.negatives):
                random += np.uint64(0x9E3779B97F4A7C15)
                j = _unobserved(ratings.item, a, b, _below(random, len(items) - (b - a)))
                n = _touch(j, n, items, slot, touched, local)
                steps[slot[j]] += 1
                _step(local, slot[j], users, u, missing, rate, ridge)
    return n


@numba.njit(cache=True)
def _touch(item, n, items, slot, touched, local):  # type: ignore[no-untyped-def]
    """Copy an item's row the first time that the client meets it; returns the number of copies."""
    if slot[item] >= 0:
        return n
    slot[item] = n
    touched[n] = item
    for f in range(items.shape[1]):
        local[n, f] = items[item, f]
    return n + 1


@numba.njit(cache=True, fastmath=FAST)
def _step(local, s, users, u, target, rate, ridge):  # type: ignore[no-untyped-def]
    """One step down the gradient of ((target - p . q - b_u - b_i)^2 + ridge (|p|^2 + |q|^2 + b_u^2 + b_i^2)) / 2."""
    d = local.shape[1] - 1
    dot = np.float32(0.0)
    for f in range(d):
        dot += local[s, f] * users[u, f]
    error = target - dot - local[s, d] - users[u, d]
    for f in range(d):
        q = local[s, f]
        p = users[u, f]
        local[s, f] = q + rate * (error * p - ridge * q)
        users[u, f] = p + rate * (error * q - ridge * p)
    local[s, d] += rate * (error - ridge * local[s, d])
    users[u, d] += rate * (error - ridge * users[u, d])


@numba.njit(cache=True)
def _settled(rows):  # type: ignore[no-untyped-def]
    """Whether no number is beyond `DIVERGED`; NaN is."""
    for row in rows:
        for x in row:
            if not abs(x) <= DIVERGED:
                return False
    return True


@numba.njit(cache=True)
def _stretch(n, touched, steps, local, items, descent):  # type: ignore[no-untyped-def]
    """Turn rows into what the client reports: their difference, `stride` times where an epoch took one step along it.

    With m steps an epoch the client has gone m times as far by itself: it reports stride / m times, never less than
    once (a stride below 1 shortens all alike).
    """
    for s in range(n):
        m = max(1.0, steps[s] / descent.epochs)
        times = np.float32(min(descent.stride, max(1.0, descent.stride / m)))
        for f in range(items.shape[1]):
            local[s, f] = times * (local[s, f] - items[touched[s], f])


@numba.njit(cache=True)
def _add_client(touched, moved, interactions, bounds, delta, weight):  # type: ignore[no-untyped-def]
    """Weigh, clip, truncate towards zero and add the differences of one client; returns whether they are finite.

    The weight comes first: it stands at every item that was touched, so its norm is sqrt(touched) times the weight.
    What it multiplies is then clipped as a whole.
    """
    width = moved.shape[1]
    square, largest = 0.0, 0.0
    for s in range(len(touched)):
        row = 0.0
        for f in range(width):
            # `float` of a float32 stays one in compiled code, and the rounding of its squares would pass the margin.
            row += np.float64(moved[s, f]) ** 2
            largest = max(largest, abs(np.float64(moved[s, f])))
        square += row
    if not square <= HUGE:  # a huge stride
        return False
    wanted = float(interactions) if bounds.by_interactions else 1.0
    allowed = min(bounds.weight_l2 / np.sqrt(float(len(touched))), bounds.weight_linf) * MARGIN
    own = np.int64(bounds.weight_scale * min(wanted, allowed))
    factor = own / bounds.weight_scale
    if square > 0:
        factor = min(factor, MARGIN * min(bounds.delta_l2 / np.sqrt(square), bounds.delta_linf / largest))
    times = bounds.delta_scale * factor
    for s in range(len(touched)):
        base = np.int64(touched[s]) * width
        weight[touched[s]] += own
        for f in range(width):
            delta[base + f] += np.int64(times * np.float64(moved[s, f]))
    return True


@numba.njit(cache=True)
def _mix(x):  # type: ignore[no-untyped-def]
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): of a counter it makes independent 64-bit numbers."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(cache=True)
def _below(counter, n):  # type: ignore[no-untyped-def]
    """A number in [0, n) for n < 2^32, from a counter; its bias is below n / 2^32."""
    return np.int64(((_mix(counter) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@numba.njit(cache=True)
def _data_hash(key, start, stop, ratings):  # type: ignore[no-untyped-def]
    """Where a client's random numbers begin: a hash of the key and of its items and targets, not of its position."""
    found = _mix(key)
    target = ratings.target[start:stop].view(np.uint32)
    for e in range(start, stop):
        found = _mix(found ^ np.uint64(ratings.item[e])) + np.uint64(target[e - start])
    return _mix(found)


@numba.njit(cache=True)
def _unobserved(item, start, stop, r):  # type: ignore[no-untyped-def]
    """The item at place r among those that are not in ``item[start:stop]`` (distinct, ascending)."""
    low, high = start, stop
    while low < high:  # item[k] - (k - start) items are missing before item[k]
        middle = (low + high) // 2
        if item[middle] - (middle - start) > r:
            high = middle
        else:
            low = middle + 1
    return r + low - start


@numba.njit(cache=True, fastmath=FAST)
def _descend(owner, ratings, items, users, descent, order):  # type: ignore[no-untyped-def]
    rate, ridge, d = descent.learning_rate, descent.regularisation, items.shape[1] - 1
    random = np.uint64(descent.key)
    for e in order:
        u = owner[e]
        a, b = ratings.ptr[u], ratings.ptr[u + 1]
        j, target = np.int64(ratings.item[e]), np.float64(ratings.target[e])
        for k in range(1 + (descent.negatives if b - a < len(items) else 0)):
            if k > 0:
                random += np.uint64(0x9E3779B97F4A7C15)
                j, target = (
                    _unobserved(ratings.item, a, b, _below(random, len(items) - (b - a))),
                    descent.negative_target,
                )
            error = target - items[j, d] - users[u, d]
            for f in range(d):
                error -= items[j, f] * users[u, f]
            for f in range(d):
                q = items[j, f]
                items[j, f] += rate * (error * users[u, f] - ridge * q)
                users[u, f] += rate * (error * q - ridge * users[u, f])
            items[j, d] += rate * (error - ridge * items[j, d])
            users[u, d] += rate * (error - ridge * users[u, d])
