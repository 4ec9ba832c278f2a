"""iALS: item and row vectors whose products are near 1 where a row has the item, and near 0 where it has not.

Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, with the loss of Rendle,
Krichene, Zhang and Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks", RecSys 2022. With row
vectors w_r, item vectors h_i, n_r items in row r and n_i rows with item i:

    L = sum over (r, i) in the log of (w_r . h_i - 1)^2  +  alpha0 sum over all (r, i) of (w_r . h_i)^2
        + lambda [ sum_r (n_r + alpha0 |I|)^nu |w_r|^2 + sum_i (n_i + alpha0 |R|)^nu |h_i|^2 ]

Each side is a least squares problem given the other. A round is one iteration: a client solves its own rows exactly
from the item vectors, and what it sends are the sums from which the server solves the items exactly:

    normal  for each item i: sum over rows r with i of c_u w_r w_r^T      triangles
    right   for each item i: sum over rows r with i of c_u w_r
    gram    sum over all rows of c_u w_r w_r^T                            triangle
    counts, rows    n_i and |R|

Row vectors never leave a client. c_u in (0, 1] is one weight for all that user u sends, as large as the bounds allow,
so a clipped sum still is a least squares problem, in which that user counts less (as in Chien et al., "Private
Alternating Least Squares", ICML 2021). Products are made of vectors of whole numbers, so that sums are exact integers.

Entries are rounded to nearest where no bound could be exceeded even if each were half a unit larger: then c_u = 1, what
is sent keeps the bounds as it is, and errors of many rows cancel. Of all other users entries are truncated towards
zero, which only shrinks. Which of the two follows from the user's own rows and public bounds. What one user may add to
an entry is HEADROOM times the mean square entry of the last round's row vectors (`size` in the state, from the summed
Gram matrix; at first from rows made up by the server), and the unit is as fine as the ring then allows.

Under noise `normal` is not summed (`coterie.models.ials_noised`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from coterie.errors import ModelError
from coterie.models.base import ROWS, Effort, Model, clip_factors, few_items, narrow_items, shares
from coterie.models.denoise import floor
from coterie.models.ials_noised import add_noised_rows, apply_noised, noised_round
from coterie.models.kernels.ials import Basis, add_scores, magnitudes, solve_rows
from coterie.models.kernels.ials_items import add_gram, add_item_statistics, quantise, solve_items
from coterie.models.popularity import add_row_counts, real_counts
from coterie.models.rows import RowUnit, rows_of
from coterie.ring import Accumulator
from coterie.rng import stream
from coterie.types import (
    Array,
    Floats,
    Items,
    Known,
    LocalStore,
    PartSpec,
    Pointers,
    Ragged,
    RoundSpec,
    Scores,
    State,
    Total,
    UserBlock,
)

CAPACITY = 1 << 42  # ring units that one user may add to an entry: such sums of two million users fit the ring
HEADROOM = (
    1 << 14
)  # what one user may add to an entry of a sum of products, in mean squares of an entry of a row vector
LEAST, MOST = 1 << 4, 1 << 30  # the same, in real units
RIGHT = 1 << 24  # ring units per 1 of sums of row vectors: a multiple of an entry's units
ENTRIES = 1 << 25  # entries of row vectors that are in memory at a time: 256 MiB

PRIVACY = ("noise_multiplier", "max_users")  # of what is public: nothing to a training of one's own rows

UNOBSERVED = 750.0  # weight of all that a row has not, in catalogues of any size


class Ials(Model):
    """Implicit alternating least squares."""

    name: ClassVar[str] = "ials"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "regularisation": (0.002, 0.007, 0.02),
        "factors": (32, 64, 128),
    }

    factors: int = Field(64, ge=1, le=2048, description="Length of the item and row vectors.")
    iterations: int = Field(16, ge=1, le=1000, description="Most rounds; each solves all rows, then all items.")
    noised_iterations: int = Field(
        2, ge=1, le=1000, description="Most rounds under a plan with noise, which is divided over them."
    )
    regularisation: float = Field(0.007, gt=0, description="Ridge: larger is smoother (lambda in the formula).")
    regularisation_exponent: float = Field(
        1.0, ge=0, le=2, description="How strongly the ridge grows with what a row or item has (nu in the formula)."
    )
    unobserved_weight: float | None = Field(
        None,
        gt=0,
        description="Weight of every pair that was not observed (alpha0 in the formula). Default: 750 over the number "
        "of items, so that all that a row has not weighs alike in catalogues of any size (ials).",
    )
    initial_std: float = Field(
        0.1, gt=0, description="Length of an item vector at the start: entries have this over the root of 'factors'."
    )
    tolerance: float = Field(
        0.0, ge=0, lt=1, description="Stop when a round changes the item vectors by less than this share; 0 never."
    )
    row: RowUnit = Field("basket", description="What one row of the matrix is; without baskets, users.")

    # --- the training -----------------------------------------------------------------------------------------------

    def init(self, n_items: int, public: Mapping[str, Array], seed: int) -> State:
        """Item vectors are drawn from a normal distribution and kept in float32, half of what a round sends down; what
        that rounds away is far less than what the sums truncate.
        """
        start = stream(seed, self.name, "init").normal(
            0.0, self.initial_std / math.sqrt(self.factors), (n_items, self.factors)
        )
        factors, alpha = start.astype(np.float32), self.unobserved_weight
        weight = UNOBSERVED / max(n_items, 1) if alpha is None else alpha
        state = super().init(n_items, public, seed).updated(factors=factors, unobserved=np.array(weight, np.float64))
        return state.updated(size=self._first_size(state))

    def next_round(self, state: State) -> RoundSpec | None:
        """The next iteration, unless all are done or the last changed next to nothing."""
        if state.round >= self._most_rounds(state) or ("change" in state and float(state["change"]) < self.tolerance):
            return None
        if _is_noised(state):
            return noised_round(state)
        n, d = state["factors"].shape
        largest = self._largest(state)
        scale = CAPACITY // largest
        return RoundSpec(
            state.round,
            "user_sum",
            (
                PartSpec("normal", (n, d * (d + 1) // 2), "rows", math.inf, largest, scale, 0.5),
                PartSpec("right", (n, d), "rows", math.inf, CAPACITY // RIGHT, RIGHT, 0.25),
                PartSpec("gram", (d, d), "triangle", math.inf, largest, scale, 0.1),
                PartSpec("counts", (n,), "dense", math.inf, ROWS, 1, 0.1),
                PartSpec("rows", (1,), "dense", ROWS, ROWS, 1, 0.05),
            ),
        )

    def budget(self, state: State) -> tuple[float, ...]:
        """Equal shares of all rounds."""
        rounds = self._most_rounds(state)
        return (1.0 / rounds,) * rounds

    def at_most(self, rounds: int | None) -> Ials:
        if rounds is None:
            return self
        fewer = {name: min(getattr(self, name), rounds) for name in ("iterations", "noised_iterations")}
        return self.model_copy(update=fewer)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Solve the rows; per user: weigh to the bounds of all parts, round to whole numbers, add them."""
        basis = _basis(state)
        row_ptr, rows = rows_of(users, self.row)
        for start, stop in _user_ranges(row_ptr, max(1, ENTRIES // self.factors)):
            own = row_ptr[start : stop + 1]
            self._add_rows(spec, state, basis, own - own[0], rows.slice(int(own[0]), int(own[-1])), out)
        if not _is_noised(state) or state.round == 0:
            add_row_counts(spec, row_ptr, rows, users.n_items, out)

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        """Solve the items; sums are used where they are and, but for noised counts, kept nowhere."""
        if _is_noised(state):
            return self._apply_noised(spec, state, total)
        counts, rows = np.maximum(total.value("counts"), 0.0), max(float(total.value("rows")[0]), 0.0)
        factors = solve_items(
            total.integers["normal"],
            total.integers["right"],
            (spec.part("normal").scale, spec.part("right").scale),
            float(state["unobserved"]) * total.value("gram"),
            self._ridge(state, counts, rows),
        )
        if not np.isfinite(factors).all():
            raise ModelError("ials: the equations of an item are not positive definite; raise 'regularisation'")
        found = self._next(state, factors, shares(counts, rows))
        diagonal = np.cumsum(np.arange(self.factors + 1, 1, -1)) - self.factors - 1
        last = float(total.value("gram")[diagonal].mean()) / max(rows, 1.0)
        return found.updated(size=np.array([state["size"][0], last]))

    def pooled(self, users: UserBlock, public: Mapping[str, Array], seed: int) -> State:
        """All rows in one sparse matrix, each side solved row by row with numpy in float64: no noise, no truncation."""
        public = {name: array for name, array in public.items() if name not in PRIVACY}
        _, rows = rows_of(users, self.row)
        matrix = sp.csr_matrix((np.ones(len(rows.item)), rows.item, rows.ptr), shape=(len(rows), users.n_items))
        matrix = matrix[np.diff(matrix.indptr) > 0]
        columns, counts = matrix.T.tocsr(), np.bincount(rows.item, minlength=users.n_items).astype(np.float64)
        state = self.init(users.n_items, public, seed)
        factors = state["factors"].astype(np.float64)
        while self.next_round(state) is not None:
            vectors = self._half_step(state, matrix, factors)
            factors = self._half_step(state, columns, vectors)
            state = self._next(state, factors, shares(counts, float(matrix.shape[0])))
        return state

    # --- scores -----------------------------------------------------------------------------------------------------

    def restrict(self, state: State, items: Items) -> State:
        """The item vectors of the sub-catalogue; rows are solved against these alone."""
        kept = {name: state[name][items] for name in ("factors", "popularity", "floor") if name in state}
        kept |= {name: state[name] for name in ("unobserved", "popular_only") if name in state}
        return State(state.round, {**narrow_items(items, state), **kept})

    def related(self, state: State, known: Known, out: Scores) -> None:
        """Out(j) += w . h_j with the w that a row of these items gets, each as certain as its amount says."""
        if state.arrays.get("popular_only"):
            return
        amount = known.amounts()
        total = np.bincount(np.repeat(np.arange(len(known)), np.diff(known.items.ptr)), amount, len(known))
        ridge = self._ridge(state, total, int(state["n_items"]))
        vectors = solve_rows(known.items, amount, ridge, _basis(state))
        add_scores(vectors, np.ascontiguousarray(state["factors"].T), out)

    def evidence(self, state: State, known: Known, item: int) -> Floats:
        """Of ``w . h_j = sum over i of amount_i h_i^T M^-1 h_j``, with M the matrix of the row: its terms."""
        factors, amount = state["factors"].astype(np.float64), known.amounts()
        if state.arrays.get("popular_only"):
            return np.zeros(len(amount))
        own = factors[known.items.item]
        matrix = float(state["unobserved"]) * factors.T @ factors + own.T @ (amount[:, None] * own)
        matrix += self._ridge(state, amount.sum(), len(factors)) * np.eye(self.factors)
        explained: Floats = amount * (own @ np.linalg.solve(matrix, factors[item]))
        return explained

    def advice(self, n_items: int) -> str | None:
        return few_items(self.factors, n_items)

    def effort(self, users: UserBlock) -> Effort:
        """Matrices are summed per row and item, and solved by Cholesky."""
        sizes, d = np.diff(users.basket_ptr).astype(np.float64), float(self.factors)
        small = np.minimum(sizes, d)
        flops = d * (sizes * small).sum() + (small**3).sum() / 3 + d * d * sizes.sum() + users.n_items * d**3 / 3
        return Effort(flops=self.iterations * float(flops), bytes=8.0 * ENTRIES + 16.0 * d * users.n_items)

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _add_rows(
        self, spec: RoundSpec, state: State, basis: Basis, row_ptr: Pointers, rows: Ragged, out: Accumulator
    ) -> None:
        sizes = np.diff(rows.ptr).astype(np.float64)
        vectors = solve_rows(rows, None, self._ridge(state, sizes, len(basis.items)), basis)
        if _is_noised(state):
            add_noised_rows(spec, vectors, row_ptr, rows, out)
            return
        owner = np.repeat(np.arange(len(row_ptr) - 1), np.diff(row_ptr))
        # A product of two entries is in units of 1 / scale, so each entry is in units of its root.
        unit = math.sqrt(spec.part("normal").scale)
        weight, nearest = _weights(spec, vectors, sizes, row_ptr, 0.5 / unit)
        root = np.sqrt(weight)[owner]
        largest = quantise(vectors, unit * root, nearest[owner])
        right_scale = spec.part("right").scale / unit * root
        add_item_statistics(rows, vectors, largest, right_scale, out["normal"], out["right"])
        add_gram(vectors, largest, out["gram"])

    def _apply_noised(self, spec: RoundSpec, state: State, total: Total) -> State:
        """The next item vectors, as far as they stand out of the noise; where none does, popularity ranks.

        Then the next round starts from the same vectors: from popularity alone nothing new would be found.
        """

        def ridge(own: Any, others: float) -> Any:
            return self._ridge(state, own, others)

        after, factors, beyond = apply_noised(spec, state, total, ridge)
        popularity = shares(*real_counts(after))
        if not beyond:
            factors = state["factors"].astype(np.float64)
        largest = float((factors**2).sum(axis=1).max(initial=0.0)) if beyond else 0.0
        found = self._next(after, factors, popularity)
        return found.updated(popular_only=np.array(not beyond, np.int64), floor=floor(popularity, largest))

    def _most_rounds(self, state: State) -> int:
        return self.noised_iterations if _is_noised(state) else self.iterations

    def _largest(self, state: State) -> int:
        """Most that one user may add to a sum of products: a power of 4, so that an entry's units are a power of 2."""
        first, last = state["size"]
        # Sums of users who weigh less hold less: without the first size their next bound would be lower, and so on.
        wanted = min(max(HEADROOM * max(float(last), float(first) / 16), LEAST), MOST)
        return int(4 ** math.ceil(math.log2(wanted) / 2))

    def _first_size(self, state: State) -> Floats:
        """The mean square entry of row vectors of 1, 2, 4, ... items, all as likely as others at a random start."""
        n = int(state["n_items"])
        rows = Ragged.of([range(2**k) for k in range(n.bit_length())])
        vectors = solve_rows(rows, None, self._ridge(state, np.diff(rows.ptr), n), _basis(state))
        return np.full(2, (vectors**2).mean() if len(rows) else 0.0)

    def _ridge(self, state: State, own: Any, others: float) -> Any:
        """The ridge ``lambda (own + alpha0 others)^nu``."""
        return self.regularisation * (own + float(state["unobserved"]) * others) ** self.regularisation_exponent

    def _next(self, state: State, factors: Floats, popularity: Floats) -> State:
        """The state after a round that found the item vectors `factors`."""
        change = np.linalg.norm(factors - state["factors"]) / max(float(np.linalg.norm(factors)), 1e-300)
        return state.updated(
            round=state.round + 1,
            popularity=popularity,
            factors=factors.astype(np.float32),
            change=np.array(change, np.float64),
        )

    def _half_step(self, state: State, matrix: sp.csr_matrix, other: Floats) -> Floats:
        """The vector of each row of `matrix` from those of its columns, one system after the other."""
        shared, n = float(state["unobserved"]) * other.T @ other, len(other)
        found = np.zeros((matrix.shape[0], self.factors))
        for r in range(matrix.shape[0]):
            own = other[matrix.indices[matrix.indptr[r] : matrix.indptr[r + 1]]]
            if len(own):
                ridge = self._ridge(state, float(len(own)), n) * np.eye(self.factors)
                found[r] = np.linalg.solve(shared + own.T @ own + ridge, own.sum(axis=0))
        return found


def _is_noised(state: State) -> bool:
    return "noise_multiplier" in state


def _basis(state: State) -> Basis:
    return Basis.of(state["factors"], float(state["unobserved"]))


def _weights(
    spec: RoundSpec, vectors: Floats, sizes: Floats, row_ptr: Pointers, half: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """The weight c_u of each user, and whether its entries may be rounded to nearest: [users].

    They may where not even entries that are larger by half a unit exceed a bound; such a user weighs 1.
    """
    nearest = _within(spec, vectors, sizes, row_ptr, half) == 1.0
    weight = np.ones(len(nearest)) if nearest.all() else _within(spec, vectors, sizes, row_ptr, 0.0)
    return np.where(nearest, 1.0, weight), nearest


def _within(spec: RoundSpec, vectors: Floats, sizes: Floats, row_ptr: Pointers, more: float) -> Floats:
    """The largest weight up to 1 at which each user keeps the bounds of all three parts, were all entries larger by
    `more`: float64 [users].

    By the triangle inequality over the user's rows: row r puts w_r into `right` and w_r w_r^T into `normal` n_r times,
    so its norm there is sqrt(n_r) times that of the vector or triangle.
    """
    norm, triangle, largest = magnitudes(vectors, more)
    root, square = np.sqrt(sizes), largest * largest
    users = len(row_ptr) - 1
    owner = np.repeat(np.arange(users), np.diff(row_ptr))

    def factors(part: str, norms: Floats, entries: Floats) -> Floats:
        return clip_factors(total(norms), total(entries), spec.part(part))

    def total(values: Floats) -> Floats:
        return np.bincount(owner, weights=values, minlength=users).astype(np.float64)

    bounds = (
        factors("normal", root * triangle, square),
        factors("gram", triangle, square),
        factors("right", root * norm, largest),
    )
    return np.minimum.reduce(bounds)


def _user_ranges(row_ptr: Pointers, rows: int) -> Iterator[tuple[int, int]]:
    """First user and end of each piece of about `rows` rows (at least one user)."""
    start, users = 0, len(row_ptr) - 1
    while start < users:
        stop = int(np.searchsorted(row_ptr, row_ptr[start] + rows, side="right")) - 1
        stop = min(max(stop, start + 1), users)
        yield start, stop
        start = stop
