"""What a noised sum says: estimates that keep what stands out of the noise, and popularity where nothing does.

A sum over pairs of items is mostly popularity: what is in many rows is in many rows with everything else. The counts of
items say that with n numbers instead of n^2, so much better. So a noised matrix is split in two: along the counts it is
taken as it is, and across them only those directions are kept that noise cannot make. With independent noise of
standard deviation s in each entry, eigenvalues of pure noise end at the edge

    2 s sqrt(k)              of a symmetric k x k matrix (the semicircle law)
    s (sqrt(k) + sqrt(d))    of the singular values of a k x d matrix (Marchenko and Pastur)

and an eigenvalue w, or singular value, above it belongs to a signal that is smaller; what comes closest to the signal
in squares is (Gavish and Donoho, "Optimal Shrinkage of Singular Values", IEEE Trans. Inf. Theory 2017)

    sqrt(w^2 - edge^2)                               symmetric
    sqrt((w^2 - s^2 (k + d))^2 - 4 s^4 k d) / w      k x d

Rare items add more noise than signal. So only the most popular ones, the head, are looked at together: as many as let
most signal stand out. The others are told by their popularity alone, and so is everything where nothing stands out:
popularity is the floor on which a model trained under noise stands. All is decided from noised sums and the size of the
noise; that costs no further privacy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import eigh

from coterie.types import Array, Floats, Items, State

SMALLEST_HEAD, LARGEST_HEAD = (
    64,
    4096,
)  # items that are looked at together; the work grows with the cube of their number
WORSE = 2  # larger heads that let less signal stand out, before the search ends
FLUCTUATION = (
    1.5  # how far noise alone may pass its edge, times k^(-2/3) (Tracy and Widom): once in a few hundred times
)
TIE = 1e-3  # what popularity adds, at most, as a share of what one known item may add: it decides between equals
SEEN = 2.0  # standard deviations of its noise below which a count is not told from none


@dataclass(frozen=True, slots=True)
class Rest:
    """What is in a matrix beyond popularity, on the items `head` (int32, ascending): left diag(values) right^T.

    left float64 [head, r], values float64 [r] (positive, descending), right float64 [columns, r]; r may be 0.
    """

    head: Items
    left: Floats
    values: Floats
    right: Floats

    @property
    def energy(self) -> float:
        return float((self.values**2).sum())


@dataclass(frozen=True, slots=True)
class Gram:
    """An estimate of a positive semidefinite item-item sum: strength m m^T beyond which `rest` stands out.

    `popular` (float64 [items]) is m, the counts at length 1; `own` (float64 [items]) what the diagonal is at least;
    `edge` is where the eigenvalues of pure noise end, in the units of the sum.
    """

    popular: Floats
    strength: float
    rest: Rest
    own: Floats
    edge: float

    @property
    def says_more(self) -> bool:
        """Whether there is anything beyond popularity."""
        return len(self.rest.values) > 0

    def factors(self) -> Floats:
        """F with F^T F the estimate, its diagonal aside: float64 [1 + r, items], popularity first."""
        found = np.zeros((1 + len(self.rest.values), len(self.popular)))
        found[0] = math.sqrt(self.strength) * self.popular
        found[1:, self.rest.head] = (self.rest.left * np.sqrt(self.rest.values)).T
        return found

    def matrix(self) -> Floats:
        """The estimate: float64 [items, items]."""
        factors = self.factors()
        full = factors.T @ factors
        np.fill_diagonal(full, np.maximum(np.diagonal(full), self.own))
        return full


def candidates(counts: Floats) -> Items:
    """The items that may be in a head (int32, ascending): the most popular, as many as are looked at at most."""
    return np.sort(np.argsort(-counts, kind="stable")[:LARGEST_HEAD]).astype(np.int32)


def denoised_gram(noised: Floats, noise: float, counts: Floats, counts_noise: float) -> Gram:
    """The estimate from a symmetric matrix with noise of standard deviation `noise` in each entry on and above the
    diagonal, and from counts (float64 [items], not negative) with noise of their own.

    `noised` (float64) has all items, or only the `candidates`.
    """
    items = candidates(counts) if len(noised) < len(counts) else np.arange(len(counts), dtype=np.int32)
    popular, known = _unit(counts), counts[items]
    own = popular[items]
    strength = max(float(own @ noised @ own), 0.0) / max(float(own @ own), 1e-9) ** 2
    rest, edge = _most_energy(known, lambda head: _symmetric_rest(noised, noise, own, head))
    # The diagonal is about proportional to the counts, which know an item better than one entry does.
    per_count = max(float(np.trace(noised)), 0.0) / max(float(known.sum()), 1e-300) if known.any() else 0.0
    diagonal = np.maximum(counts, SEEN * counts_noise) * per_count
    return Gram(popular, strength, replace(rest, head=items[rest.head]), diagonal, edge)


def denoised_antisymmetric(noised: Floats, noise: float, head: Items) -> Floats:
    """The estimate of an antisymmetric matrix on the items `head`: float64 [head, head].

    `noise` is that of each entry off the diagonal. Its eigenvalues are pairs of imaginary numbers of the size of its
    singular values, with the edge of a symmetric matrix.
    """
    left, values, right = np.linalg.svd(noised[np.ix_(head, head)])
    edge = 2.0 * noise * math.sqrt(len(head))
    kept = values > edge * _above(len(head))
    shrunk = np.sqrt(np.maximum(values[kept] ** 2 - edge**2, 0.0))
    found = (left[:, kept] * shrunk) @ right[kept]
    return np.asarray((found - found.T) / 2)


def denoised_rows(noised: Floats, noise: float, counts: Floats) -> tuple[Floats, int]:
    """The estimate from one row per item (float64 [items, d]) with noise of standard deviation `noise` in each entry.

    Returns it with the number of directions that stand out beyond popularity.
    """
    popular = _unit(counts)
    along = popular @ noised
    rest, _ = _most_energy(counts, lambda head: _rectangular_rest(noised, noise, popular, head))
    found = np.outer(popular, along)
    found[rest.head] += (rest.left * rest.values) @ rest.right.T
    return found, len(rest.values)


def floor(popularity: Floats, largest: float) -> Floats:
    """What is added to the score of each item whoever asks: float64 [items], in the order of popularity.

    `largest` is what one known item may add to a score; where that is 0 there is popularity alone, as it is.
    """
    top = float(popularity.max(initial=0.0))
    if largest <= 0.0 or top <= 0.0:
        return popularity
    return popularity * (TIE * largest / top)


def mixed_floor(state: State, own: State, weight: float) -> dict[str, Array]:
    """The floor of a mix: ``(1 - weight)`` of the one state's and `weight` of the other's, if either has one."""
    ends = ((1.0 - weight, state), (weight, own))
    floors = [share * end["floor"] for share, end in ends if "floor" in end]
    return {"floor": np.sum(floors, axis=0)} if floors else {}


def carried(state: State, *parts: str) -> dict[str, Array]:
    """What a state knows of the noise in these parts: its size, and what each user could add."""
    names = [f"{part}_{fact}" for part in parts for fact in ("noise", "bound")]
    return {name: state[name] for name in names if name in state}


def _unit(counts: Floats) -> Floats:
    length = float(np.linalg.norm(counts))
    return counts / length if length > 0 else np.zeros(len(counts))


def _heads(counts: Floats) -> Iterator[Items]:
    """The most popular items (int32, ascending), more and more of them."""
    order, most = np.argsort(-counts, kind="stable"), min(len(counts), LARGEST_HEAD)
    size = SMALLEST_HEAD
    while size < most:
        yield np.sort(order[:size]).astype(np.int32)
        size *= 2
    yield np.sort(order[:most]).astype(np.int32)


def _most_energy(counts: Floats, look: Callable[[Items], tuple[Rest, float]]) -> tuple[Rest, float]:
    """What the head says that lets most signal stand out, and its edge; among equals the larger head.

    Once two larger heads in a row have let less stand out, still larger ones are not looked at.
    """
    found = list[tuple[Rest, float]]()
    for head in _heads(counts):
        found.append(look(head))
        energies = [rest.energy for rest, _ in found]
        if len(found) > WORSE and max(energies[-WORSE:]) < max(energies[:-WORSE]):
            break
    return max(reversed(found), key=lambda one: one[0].energy)


def _symmetric_rest(noised: Floats, noise: float, popular: Floats, head: Items) -> tuple[Rest, float]:
    edge, cut = 2.0 * noise * math.sqrt(len(head)), _above(len(head))
    square, own = noised[np.ix_(head, head)], _unit(popular[head])
    image = square @ own
    square -= np.outer(own, image) + np.outer(image, own) - float(own @ image) * np.outer(own, own)
    values, vectors = eigh(square, subset_by_value=(edge * cut, np.inf)) if len(head) else (np.zeros(0), square)
    values, vectors = values[::-1], np.ascontiguousarray(vectors[:, ::-1])
    shrunk = np.sqrt(np.maximum(values**2 - edge**2, 0.0))
    return Rest(head, vectors, shrunk, vectors), edge


def _rectangular_rest(noised: Floats, noise: float, popular: Floats, head: Items) -> tuple[Rest, float]:
    k, d = len(head), noised.shape[1]
    edge, own = noise * (math.sqrt(k) + math.sqrt(d)), _unit(popular[head])
    rows = noised[head]
    rows -= np.outer(own, own @ rows)
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    kept = values > edge * _above(min(k, d))
    left, values, right = left[:, kept], values[kept], right[kept]
    square = noise * noise
    below = 4.0 * square * square * k * d
    shrunk = np.sqrt(np.maximum((values**2 - square * (k + d)) ** 2 - below, 0.0)) / np.maximum(values, 1e-300)
    return Rest(head, left, shrunk, right.T), edge


def _above(k: int) -> float:
    """How far above its edge the largest eigenvalue of k x k noise may be, as a factor."""
    return 1.0 + FLUCTUATION * max(k, 1) ** (-2 / 3)
