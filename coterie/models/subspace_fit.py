"""The server's half of the private subspace: sizes, directions and factors from noised sums alone.

Everything here is a function of what was released: sums, the standard deviation of their noise, and public item
features. Norms of noise are those of random matrices: with independent entries of standard deviation s, an n x k matrix
is about s (sqrt(n) + sqrt(k)) long, and a symmetric n x n one 2 s sqrt(n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.special import ndtr

from coterie.models.kernels.symmetric import sign_fixed
from coterie.types import Floats, Integers

WEIGHT = 0.5  # an item of popularity p weighs p^-WEIGHT while directions are sought
WHITEN = 0.5  # how far directions are made alike before users are placed by them: s^-WHITEN
FLOOR = 2.0  # popularity is told from nothing from so many standard deviations of its noise on
KEPT = 1.5  # items of fewer standard deviations are left out of the head
FALSE = 0.5  # and of those kept, no more than this share may be there by noise alone
EDGE = 1.03  # directions must be longer than the longest of pure noise, times this
FEW, MOST_GRAM = 50, 1500  # bounds on the items whose pairs are summed
FEWEST, MOST = 4, 128  # bounds on the directions
REACH = 621.0  # users per noise at which GRAM pairs and DIRECTIONS directions do best: 6,040 users at epsilon 1
GRAM, GRAM_GROWTH = 150.0, 0.7
DIRECTIONS, DIRECTIONS_GROWTH = 14.0, 0.5
ITEMS_EACH = 8  # items for each direction, at least
LIKENESS = 0.5  # how much of what directions say of an item is expected to follow from its features
CHANCE = 3.0  # noise alone is that much longer than expected once in a hundred times (Davidson and Szarek 2001)
LAST = 40  # items of the head by which others are judged
NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Sizes:
    """How much the sums of a training can carry: items of the head, of the Gram, and directions."""

    head: int
    gram: int
    directions: int


def sizes(mass: Floats, users: float, noise: float, factors: int | None) -> Sizes:
    """What can be told from noise: `mass` (float64 [items]) and the number of `users` as released.

    The head are the items whose popularity stands out of noise of standard deviation `noise`. The number of pairs and
    of directions follows from users per noise: a sum over N users tells sqrt(K) directions of noise from taste as long
    as N outweighs it.
    """
    head = max(_head(np.sort(mass)[::-1], noise), min(len(mass), 2))
    gram, wanted = float(MOST_GRAM), float(MOST)
    if noise > 0:
        reach = max(users, 1.0) / noise / REACH
        gram = min(max(GRAM * reach**GRAM_GROWTH, FEW), MOST_GRAM)
        wanted = min(DIRECTIONS * reach**DIRECTIONS_GROWTH, MOST)
    # Of more, items hardly share any: a direction then says little but that an item goes with itself.
    wanted = max(min(wanted, head / ITEMS_EACH), FEWEST)
    return Sizes(head, min(head, round(gram)), min(factors or round(wanted), head))


def levels(mass: Floats, noise: float) -> Floats:
    """Popularity to divide by: never so small that it could be noise alone, or the mark of a single user."""
    return np.maximum(mass, max(FLOOR * noise, 0.5))


def lens(level: Floats) -> tuple[Floats, Floats]:
    """The weight of each item, and the unit vector along which popularity alone would place everybody."""
    mean = level ** (1.0 - WEIGHT)
    return level**-WEIGHT, mean / np.linalg.norm(mean)


def gram_directions(triangle: Floats, noise: float, mean: Floats, most: int) -> Floats:
    """Leading directions of the summed pairs that stand out of noise, as columns (float64 [items, k], k >= 1).

    Each is shortened by how far noise has turned it: with an eigenvalue l of the sum, e the largest that noise alone
    would have, and y = (l + sqrt(l^2 - e^2)) / 2 the eigenvalue before noise, cos^2 = 1 - (e / 2 y)^2 (Benaych-Georges
    and Nadakuditi, Adv. Math. 2011).
    """
    n = len(mean)
    gram = np.zeros((n, n))
    gram[np.triu_indices(n)] = triangle
    # The lower half is never read.
    values, vectors = scipy.linalg.eigh(gram, lower=False, subset_by_index=[max(n - most, 0), n - 1])
    values, vectors = values[::-1], sign_fixed(vectors[:, ::-1])
    edge = 2.0 * np.sqrt(n) * noise
    found = max(int((values > max(EDGE * edge, NEGLIGIBLE * max(values[0], 0.0), 1e-300)).sum()), 1)
    values, vectors = np.maximum(values[:found], max(edge, 1e-300)), vectors[:, :found]
    before = (values + np.sqrt(values**2 - edge**2)) / 2.0
    cosine = np.clip(1.0 - (edge / (2.0 * before)) ** 2, 0.03, 1.0)
    scaled = vectors * (np.sqrt(cosine) * (before / before[0]) ** -WHITEN)
    return scaled - np.outer(mean, mean @ scaled)


def feature_directions(features: sp.csr_matrix, level: Floats, mean: Floats, most: int) -> Floats:
    """Leading directions in which items would differ if their features were all: float64 [items, k], k >= 1."""
    weight, _ = lens(level)
    scaled = sp.diags(weight * np.sqrt(level)) @ features
    across = scaled.T @ mean
    inner = (scaled.T @ scaled).toarray() - np.outer(across, across)
    values, vectors = scipy.linalg.eigh(inner, subset_by_index=[max(len(inner) - most, 0), len(inner) - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    found = max(int((values > NEGLIGIBLE * max(values[0], 0.0)).sum()), 1)
    values, vectors = np.maximum(values[:found], 1e-300), vectors[:, :found]
    columns = scaled @ vectors - np.outer(mean, across @ vectors)
    return sign_fixed(columns / np.sqrt(values) * (values / values[0]) ** (-WHITEN / 2.0))


def stacked_directions(
    stack: Floats, mean: Floats, noisy: bool, features: tuple[sp.csr_matrix, sp.csr_matrix] | None, most: int
) -> tuple[Floats, Floats]:
    """Columns u_k sqrt(s_k / s_1) of what the rounds have summed, side by side: float64 [head, k] and [rest, k].

    `stack` is in standard deviations of its noise where there is noise. If nothing of it is longer than noise alone
    would be, there are no directions: k = 0. The rest are items of which nothing was summed: where `features` (of the
    head, and of the rest) are known, they go where these would put them.
    """
    centred = stack - np.outer(mean, mean @ stack)
    longest = float(np.sqrt(np.linalg.eigvalsh(centred.T @ centred)[-1])) if centred.size else 0.0
    edge = np.sqrt(stack.shape[0]) + np.sqrt(stack.shape[1]) + CHANCE if noisy else 0.0
    beyond = np.zeros((0 if features is None else features[1].shape[0], stack.shape[1]))
    if longest <= edge:
        return np.zeros((len(mean), 0)), beyond[:, :0]
    if features is not None:
        centred, beyond = smoothed(stack, *features)
        centred -= np.outer(mean, mean @ centred)
    vectors, lengths, across = np.linalg.svd(centred, full_matrices=False)
    found = max(int((lengths[:most] > NEGLIGIBLE * lengths[0]).sum()), 1)
    head, lengths = sign_fixed(vectors[:, :found]), lengths[:found]
    turned = np.where(np.sum(head * vectors[:, :found], axis=0) < 0, -1.0, 1.0)
    strength = np.sqrt(lengths / lengths[0])
    return head * strength, beyond @ across[:found].T * (turned * strength / lengths)


def smoothed(stack: Floats, features: sp.csr_matrix, others: sp.csr_matrix) -> tuple[Floats, Floats]:
    """The rows of `stack` (unit noise) as expected from what is measured and from items of like features.

    Rows are drawn, it is assumed, from a Gaussian with the covariance C = T^(1/2) (a F F^T + (1 - a) I) T^(1/2) between
    items, where T is what items so popular vary by: the best guess is C (C + I)^-1 times what was measured. With
    features F (items x few) the inverse is that of a matrix of features (Woodbury). The second array are the rows of
    `others`, of which nothing was measured, as expected from features alone: they vary by what the last items do.
    """
    spread = variances((stack**2).mean(axis=1))
    own = (1.0 - LIKENESS) * spread + 1.0
    root = sp.diags(np.sqrt(LIKENESS * spread)) @ features
    weighted = (sp.diags(1.0 / own) @ root).tocsr()
    inner = np.eye(features.shape[1]) + (root.T @ weighted).toarray()
    rest = stack / own[:, None] - weighted @ scipy.linalg.solve(inner, weighted.T @ stack, assume_a="pos")
    last = np.sqrt(LIKENESS * float(spread[-LAST:].mean()))
    return np.asarray(stack - rest), np.asarray(last * (others @ (root.T @ rest)))


def variances(squares: Floats) -> Floats:
    """By how much items vary besides noise of variance 1: `squares`, most popular first, averaged over neighbours."""
    n = len(squares)
    at, sums = np.arange(n), np.concatenate([[0.0], np.cumsum(squares - 1.0)])
    reach = np.maximum(40, (0.15 * at).astype(np.int64))
    low, high = np.maximum(at - reach, 0), np.minimum(at + reach + 1, n)
    return np.maximum((sums[high] - sums[low]) / (high - low), 1e-3)


def _head(falling: Floats, noise: float) -> int:
    """How many of the most popular items (`falling`: mass, largest first) stand out of the noise."""
    if noise == 0:
        return int((falling > 0).sum())
    kept = np.arange(1, len(falling) + 1)
    by_noise = len(falling) * ndtr(-falling / noise)
    return int(((falling > KEPT * noise) & (by_noise <= FALSE * kept)).sum())


def in_head(head: Integers, n_items: int) -> Integers:
    """Where each item stands in the head: int64 [items], -1 for the others."""
    place = np.full(n_items, -1, np.int64)
    place[head] = np.arange(len(head))
    return place
