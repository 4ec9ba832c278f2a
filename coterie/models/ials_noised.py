"""iALS under noise: what is summed then, and the item vectors that follow (see `coterie.models.ials`).

The normal equations of an item are d^2 / 2 noisy numbers beside the d of its right side, and but for the few most
popular items noise drowns them. They are not asked for (as they are in Chien et al. 2021): the rows that hold an item
are taken to be spread like all rows, so that with C = sum over users of c_u and n_i = sum over users with i of c_u

    (n_i / C + alpha0) gram h_i + lambda (n_i + alpha0 C) h_i = right_i

which is solved in the eigenbasis of `gram`. Right sides are denoised (`coterie.models.denoise`): along the counts they
are taken as they are, beyond them what stands out of the noise is kept. Counts are summed in the first round alone.

Each user's part has the same norm: c_u is 1 over the norm of what the user would send. So the typical length of a row
vector, which sets the bounds, is a public guess from the last round's `gram`; a wrong one changes no user's weight
against another's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from coterie.models.base import CLIP, MARGIN, clip_factors, kept_sums
from coterie.models.denoise import denoised_rows
from coterie.models.kernels.ials import magnitudes
from coterie.models.kernels.ials_items import add_gram, quantise
from coterie.models.kernels.subspace import add_to_items
from coterie.models.popularity import count_parts, real_counts
from coterie.ring import Accumulator
from coterie.types import Floats, PartSpec, Pointers, Ragged, RoundSpec, State, Total

RIGHT = 1 << 24  # ring units per 1 of sums of row vectors
PRODUCTS = 2.0**40  # ring units for the squared length of a typical row vector
GRAM_NORM = 0.2  # clip norm of `gram` in squared lengths of a typical row vector, for users who weigh 1 / sqrt(25)
COUNTS = 0.4  # share of the first round's noise budget: counts are asked for once
LINF = 2.0**18  # per entry, without a plan's bound
EXACT = 2.0**52  # whole numbers whose products may be added in float64

Ridge = Callable[[Any, float], Any]


def noised_round(state: State) -> RoundSpec:
    """``right`` and ``gram``; in the first round also counts."""
    n, d = state["factors"].shape
    length = _typical_length(state)
    square = length * length
    # What one user may add is as much in ring units, however long row vectors are: entries get about 20 bits.
    scale = 4 ** round(math.log2(PRODUCTS / square) / 2)
    parts = (
        PartSpec("right", (n, d), "rows", math.inf, LINF, RIGHT, 0.6, CLIP * length),
        PartSpec("gram", (d, d), "triangle", math.inf, PRODUCTS / scale, scale, 0.15, GRAM_NORM * square),
    )
    return RoundSpec(state.round, "user_sum", parts if state.round else (*parts, *count_parts(n, COUNTS, 0.03)))


def add_noised_rows(spec: RoundSpec, vectors: Floats, row_ptr: Pointers, rows: Ragged, out: Accumulator) -> None:
    """Per user: weigh the row vectors to the bounds of both parts, truncate towards zero, add integers.

    `vectors` are float64 [rows, d]; they are overwritten.
    """
    right, gram = spec.part("right"), spec.part("gram")
    weight = _weights(right, gram, vectors, np.diff(rows.ptr).astype(np.float64), row_ptr)
    weight = np.repeat(weight, np.diff(row_ptr))
    moved = np.trunc(right.scale * weight[:, None] * vectors).astype(np.int64)
    add_to_items(rows, moved, out["right"])
    # A product of two entries is in units of 1 / scale, so each entry is in units of its root.
    largest = quantise(vectors, math.sqrt(gram.scale) * np.sqrt(weight), np.zeros(len(vectors), np.bool_))
    add_gram(vectors, largest, out["gram"])


def apply_noised(spec: RoundSpec, state: State, total: Total, ridge: Ridge) -> tuple[State, Floats, int]:
    """The state with what the round says of sizes and counts, the item vectors (float64 [items, d]), and how many
    directions of them stand out beyond popularity.

    ``ridge(own, others)`` is the ridge of items in `own` rows of `others`.
    """
    if state.round == 0:
        counted = RoundSpec(0, spec.kind, spec.parts[2:])
        state = State(state.round, {**state.arrays, **kept_sums(counted, total)})
    counts, rows = real_counts(state)
    # A user of n items counts n / sqrt(n) items and weighs about 1 / sqrt(n).
    weights = rows * rows / max(float(counts.sum()), rows)
    right = total.value("right").reshape(spec.part("right").shape)
    found, beyond = denoised_rows(right, total.noise_std["right"], counts)
    values, vectors = np.linalg.eigh(_full(total.value("gram"), right.shape[1]))
    least = total.noise_std["gram"] * math.sqrt(right.shape[1])  # half of what noise alone could make of an eigenvalue
    values = np.maximum(values, least)
    alpha = float(state["unobserved"])
    matrix = (counts / weights + alpha)[:, None] * values + ridge(counts, weights)[:, None]
    factors = ((found @ vectors) / matrix) @ vectors.T
    size = float(values.sum()) / (weights * right.shape[1])
    return state.updated(size=np.array([state["size"][0], size])), factors, beyond


def _typical_length(state: State) -> float:
    """Root mean square length of a row vector, as far as is publicly known: no less than a quarter of the first."""
    first, last = state["size"]
    return math.sqrt(max(float(last), float(first) / 16, 1e-12) * state["factors"].shape[1])


def _weights(right: PartSpec, gram: PartSpec, vectors: Floats, sizes: Floats, row_ptr: Pointers) -> Floats:
    """The weight c_u of each user: the largest up to 1 at which it keeps all bounds, by the triangle inequality over
    its rows: float64 [users].
    """
    norm, triangle, largest = magnitudes(vectors, 0.0)
    users = len(row_ptr) - 1
    owner = np.repeat(np.arange(users), np.diff(row_ptr))

    def total(values: Floats) -> Floats:
        return np.bincount(owner, weights=values, minlength=users).astype(np.float64)

    square, exact = total(largest * largest), EXACT / gram.scale
    bounds = (
        clip_factors(total(np.sqrt(sizes) * norm), total(largest), right),
        clip_factors(total(triangle), square, gram),
        np.minimum(exact / np.maximum(square, exact), 1.0) * MARGIN,
    )
    return np.minimum.reduce(bounds)


def _full(triangle: Floats, d: int) -> Floats:
    full = np.zeros((d, d))
    full[np.triu_indices(d)] = triangle
    return full + np.triu(full, 1).T
