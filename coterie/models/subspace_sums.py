"""What users send in the rounds of the private subspace: whole numbers, each user's bounded by itself.

A user's vector is scaled to its bound, then cut to whole numbers towards zero, which only shortens it. Products of
whole numbers below 2^53 are exact in float64, so sums over users are made by a matrix product, whoever is in the block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from coterie.models.base import MARGIN
from coterie.models.kernels.private_subspace import centred, coordinates, user_norms, whole_squares
from coterie.models.subspace_fit import in_head, lens
from coterie.ring import Accumulator
from coterie.types import PartSpec, Ragged, RoundSpec, State

SCALE = 1 << 40  # ring units per 1: two million users fit the ring, and what is cut off is nothing
MASS_SHARE = 0.98  # of round 0 for popularity; the rest is for the number of users
ENTRIES = 1 << 24  # numbers of dense rows that are in memory at a time: 128 MiB
EXACT = 2.0**52


def mass_round(n_items: int) -> RoundSpec:
    """Round 0: x_u / sqrt(n_u), and 1 for each user who has anything."""
    mass = PartSpec("mass", (n_items,), "dense", 1.0, 1.0, SCALE, MASS_SHARE)
    return RoundSpec(0, "user_sum", (mass, PartSpec("users", (1,), "dense", 1.0, 1.0, SCALE, 1.0 - MASS_SHARE)))


def gram_round(items: int) -> RoundSpec:
    """Round 1 without features: pairs of the most popular items."""
    return RoundSpec(1, "user_sum", (PartSpec("gram", (items, items), "triangle", 1.0, 1.0, SCALE),))


def image_round(index: int, items: int, directions: int) -> RoundSpec:
    """A round of regression on the head."""
    return RoundSpec(index, "user_sum", (PartSpec("image", (items, directions), "rows", 1.0, 1.0, SCALE),))


def add_mass(spec: RoundSpec, rows: Ragged, out: Accumulator) -> None:
    """Add ``x_u / sqrt(n_u)`` and the number of users."""
    mass, users = spec.part("mass"), spec.part("users")
    share = np.floor(_length(mass) * user_norms(rows.ptr)).astype(np.int64)
    np.add.at(out["mass"], rows.item, np.repeat(share, np.diff(rows.ptr)))
    out["users"][0] += int(_length(users)) * int((np.diff(rows.ptr) > 0).sum())


def add_pairs(spec: RoundSpec, state: State, rows: Ragged, out: Accumulator) -> None:
    """Add the upper triangle of h h^T for the taste h of each user on the most popular items."""
    part = spec.part("gram")
    n, upper, gram = part.shape[0], np.triu_indices(part.shape[0]), out["gram"]
    place = in_head(state["head"][:n], int(state["n_items"]))
    weight, mean = lens(state["level"][:n])
    for some in _blocks(rows, n, part):
        whole = whole_squares(centred(some, place, weight, mean), np.sqrt(_length(part)))
        gram += (whole.T @ whole)[upper].astype(np.int64)


def add_image(spec: RoundSpec, state: State, rows: Ragged, out: Accumulator) -> None:
    """Add y z^T for the taste y of each user, and its coordinates z along the directions so far."""
    part, basis, image = spec.part("image"), state["basis"], out["image"]
    n, d = part.shape
    place = in_head(state["head"], int(state["n_items"]))
    weight, mean = lens(state["level"])
    fine = 2.0 ** min(17, int(np.log2(part.scale)) // 2)  # units of z; those of y are what is left of the scale
    for some in _blocks(rows, n + d, part):
        taste = centred(some, place, weight, mean)
        np.trunc(np.multiply(taste, _length(part) / fine, out=taste), out=taste)
        where = coordinates(some, place, weight, basis, fine)
        image += (taste.T @ where).astype(np.int64).ravel()


def _length(part: PartSpec) -> float:
    """How long a user's integers may be: the bound in ring units, less what rounding could add."""
    return min(part.l2, part.linf) * part.scale * MARGIN


def _blocks(rows: Ragged, width: int, part: PartSpec) -> Iterator[Ragged]:
    """Some rows at a time: as many as fit the memory, and whose products are exact sums."""
    step = int(max(min(ENTRIES // width, EXACT // max(_length(part), 1.0)), 1))
    for start in range(0, len(rows), step):
        yield rows.slice(start, min(start + step, len(rows)))
