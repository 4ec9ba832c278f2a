"""Spectral: the leading directions of the item-item matrix (PureSVD).

Cremonesi, Koren and Turrin, "Performance of Recommender Algorithms on Top-N Recommendation Tasks", RecSys 2010 (section
3.4): score = x V V^T, where V holds the leading right singular vectors of the binary rows X. Popular items dominate
them; with the item degrees d and D = diag(d)^c they weigh less (Nikolakopoulos et al., "EigenRec", KAIS 2019),

    V = leading right singular vectors of X D^(-1),    score = x D^(-1) V V^T D.

c = 0 is PureSVD. V comes from one summed Gram matrix, or, where that is too large, by federated subspace iteration: in
each round the server publishes an orthonormal basis Q (|I| x k) and the rows r of the clients sum

    image    sum_r x_r (x_r^T D^(-1) Q)    rows, |I| x k

which is X^T X D^(-1) Q. The server multiplies it by D^(-1); its left singular vectors are the next basis.

Under noise either sum is denoised (`coterie.models.denoise`). What stands out is what the next round asks about: a
basis of fewer directions, in which each user's norm of 1 goes further.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from coterie.models.base import CLIP, LINF, MARGIN, Effort, Model, few_items, kept_sums, shares
from coterie.models.denoise import SEEN, carried, denoised_rows, floor
from coterie.models.gram import (
    add_gram_sums,
    eigenvector_effort,
    gram_of,
    gram_parts,
    pooled_sums,
    restricted_sums,
    row_matrix,
    sparse_sums,
)
from coterie.models.kernels.subspace import add_image, add_products, fixed_point, gather
from coterie.models.kernels.symmetric import (
    NEGLIGIBLE,
    leading_eigenvectors,
    orthonormal,
    right_singular_vectors,
    sign_fixed,
)
from coterie.models.popularity import PAIRS_SHARE, add_row_counts, count_parts, real_counts
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
    RoundSpec,
    Scores,
    State,
    Total,
    UserBlock,
)

SCALE = 1 << 24  # ring units per 1 of the basis and of its image


class Spectral(Model):
    """PureSVD, from the summed Gram matrix or by federated subspace iteration.

    A trained state has ``factors`` (float32 [factors, items]: V^T D) and ``counts``; with the Gram also its sums, else
    ``basis`` (float64 [items, factors + oversampling]: Q, the leading directions first) and ``change``, how far the
    last round moved them: 0 not at all, 1 to orthogonal ones.
    """

    name: ClassVar[str] = "spectral"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"factors": (32, 64, 128, 256), "item_exponent": (0.0, 0.25, 0.5)}

    row: RowUnit = Field("basket", description="What one row of the matrix is; without baskets, users.")
    factors: int = Field(128, ge=1, le=4096, description="Leading directions that scores are made of.")
    item_exponent: float = Field(0.25, ge=0, le=1, description="An item in n rows weighs n^-this; 0 is PureSVD.")
    method: Literal["auto", "gram", "subspace"] = Field(
        "auto",
        description="One sum of all item pairs, or rounds of one image of the directions; auto: by `gram_items`.",
    )
    gram_items: int = Field(20_000, ge=1, description="Most items for which auto sums all pairs of items.")
    iterations: int = Field(8, ge=1, description="Most rounds of the subspace method.")
    noised_iterations: int = Field(
        2, ge=1, description="Most rounds of the subspace method under a plan with noise, which is divided over them."
    )
    oversampling: int = Field(16, ge=0, description="Directions that the subspace method carries besides.")
    tolerance: float = Field(
        0.1, ge=0, le=1, description="The subspace method ends when a round changes less; 0 never."
    )

    def init(self, n_items: int, public: Mapping[str, Array], seed: int) -> State:
        """A random orthonormal basis, where rounds start from one."""
        start: dict[str, Array] = {"n_items": np.array(n_items, np.int64), **public}
        if not self._by_gram(n_items):
            width = min(self.factors + self.oversampling, n_items)
            draw = stream(seed, self.name, "init").standard_normal((n_items, width))
            start |= {"basis": orthonormal(draw)[0], "change": np.array(1.0)}
        return State(0, start)

    def next_round(self, state: State) -> RoundSpec | None:
        n = int(state["n_items"])
        if self._by_gram(n):
            return RoundSpec(0, "user_sum", gram_parts(n, 1)) if state.round == 0 else None
        if state.round >= self._most_rounds(state) or (state.round > 0 and float(state["change"]) < self.tolerance):
            return None
        shape = (n, state["basis"].shape[1])
        image = PartSpec("image", shape, "rows", math.inf, LINF, SCALE, PAIRS_SHARE if state.round == 0 else 1.0, CLIP)
        counted = count_parts(n) if state.round == 0 else ()
        return RoundSpec(state.round, "user_sum", (image, *counted))

    def budget(self, state: State) -> tuple[float, ...]:
        """One sum, or equal shares of the rounds of the subspace method."""
        rounds = 1 if self._by_gram(int(state["n_items"])) else self._most_rounds(state)
        return (1.0 / rounds,) * rounds

    def at_most(self, rounds: int | None) -> Spectral:
        """The rounds of the subspace method; its pooled counterpart is exact whatever they are."""
        if rounds is None:
            return self
        fewer = {name: min(getattr(self, name), rounds) for name in ("iterations", "noised_iterations")}
        return self.model_copy(update=fewer)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Per user: clip to the bounds of each part, truncate towards zero, add integers."""
        if self._by_gram(users.n_items):
            add_gram_sums(spec, users, self.row, 0.0, out)
            return
        (row_ptr, rows), image = rows_of(users, self.row), spec.part("image")
        basis = fixed_point(state["basis"] * self._item_scale(state)[:, None], image.scale)
        unit = image.scale * MARGIN
        add_image(row_ptr, rows, basis, image.l2 * unit, image.linf * unit, out["image"])
        if len(spec.parts) > 1:
            add_row_counts(spec, row_ptr, rows, users.n_items, out)

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        if self._by_gram(int(state["n_items"])):
            return self._solved(State(spec.index + 1, {**state.arrays, **sparse_sums(spec, total)}))
        if len(spec.parts) > 1:
            sums = kept_sums(RoundSpec(spec.index, spec.kind, spec.parts[1:]), total)
            state = State(state.round, {**state.arrays, **sums})
            state = state.updated(popularity=shares(*real_counts(state)))
        state, image = state.updated(round=spec.index + 1), total.value("image").reshape(spec.part("image").shape)
        if noise := total.noise_std["image"]:
            return self._turned_noised(state, *denoised_rows(image, noise, real_counts(state)[0]))
        return self._turned(state, image)

    def restrict(self, state: State, items: Items) -> State:
        """From a summed Gram, the directions of the sub-catalogue; else the same directions, on its items."""
        if len(items) == int(state["n_items"]):
            return state
        if "gram" in state or "low" in state:
            return self._solved(restricted_sums(state, items))
        kept = {name: state[name] for name in ("rows", "rows_scale", "counts_scale")} | carried(state, "counts", "rows")
        kept |= {name: state[name][items] for name in ("counts", "popularity", "floor") if name in state}
        factors = np.ascontiguousarray(state["factors"][:, items])
        return State(state.round, {"n_items": np.array(len(items), np.int64), **kept, "factors": factors})

    def related(self, state: State, known: Known, out: Scores) -> None:
        """Out(j) += sum over known items i of amount_i d_i^-c V_i . V_j d_j^c."""
        amounts = known.amounts() * self._item_scale(state)[known.items.item] ** 2
        add_products(gather(known.items, amounts, state["factors"]), state["factors"], out)

    def evidence(self, state: State, known: Known, item: int) -> Floats:
        items, factors = known.items.item, state["factors"].astype(np.float64)
        amounts: Floats = known.amounts() * self._item_scale(state)[items] ** 2
        amounts *= factors[:, items].T @ factors[:, item]
        return amounts

    def advice(self, n_items: int) -> str | None:
        return few_items(self.factors, n_items)

    def effort(self, users: UserBlock) -> Effort:
        """Pairs are added once and multiplied some 25 times a direction; or each row is read twice a round."""
        n, width = users.n_items, min(self.factors + self.oversampling, users.n_items)
        if not self._by_gram(n):
            flops = self.iterations * 6.0 * n * width**2
            return Effort(2.0 * self.iterations * len(users.item) * width, flops, 40.0 * n * width)
        return eigenvector_effort(users, width)

    def pooled(self, users: UserBlock, public: Mapping[str, Array], seed: int) -> State:
        """The singular value decomposition of X D^(-1) by scipy; the Gram is kept for sub-catalogues."""
        n, (_, rows) = users.n_items, rows_of(users, self.row)
        matrix, number = row_matrix(rows, n), float((np.diff(rows.ptr) > 0).sum())
        counts, one = np.asarray(matrix.sum(axis=0)).ravel(), np.array(1, np.int64)
        state = State(1, {"n_items": np.array(n, np.int64), **public, "counts": counts, "counts_scale": one})
        scale = self._item_scale(state)
        vectors = right_singular_vectors(matrix @ sp.diags(scale), self.factors, stream(seed, self.name, "pooled"))
        factors, popularity = _served(vectors, scale), shares(counts, number)
        state = state.updated(rows=np.array([number]), rows_scale=one, popularity=popularity, factors=factors)
        return State(1, {**state.arrays, **pooled_sums(rows, n, 0.0)}) if self._by_gram(n) else state

    def _by_gram(self, n_items: int) -> bool:
        return self.method == "gram" or (self.method == "auto" and n_items <= self.gram_items)

    def _item_scale(self, state: State) -> Floats:
        """d^-c: float64 [items], at most 1; 1 before anything was counted."""
        if "counts" not in state:
            return np.ones(int(state["n_items"]))
        counts = state["counts"] / float(state["counts_scale"])
        least = max(SEEN * float(state["counts_noise"]), 1.0) if "counts_noise" in state else 1.0
        scale: Floats = np.maximum(counts, least) ** -self.item_exponent
        return scale

    def _most_rounds(self, state: State) -> int:
        return self.noised_iterations if "noise_multiplier" in state else self.iterations

    def _solved(self, state: State) -> State:
        """The directions from the summed Gram."""
        scale = self._item_scale(state)
        if "low" in state:
            state = state.updated(popularity=shares(*real_counts(state)))
            low = np.zeros((0, len(scale))) if state["popular_only"] else state["low"] * scale
            _, strength, right = np.linalg.svd(low, full_matrices=False)
            return self._standing(state, right.T, strength**2)
        root = np.sqrt(float(state["gram_scale"]))
        _, vectors = leading_eigenvectors(gram_of(state), scale / root, self.factors, stream(0, self.name, "start"))
        return state.updated(factors=_served(vectors, scale), popularity=shares(*real_counts(state)))

    def _turned(self, state: State, image: Floats) -> State:
        """The next basis: the left singular vectors of D^(-1) times the image of the last one.

        For a basis Q of the matrix A they are closer to A's leading eigenvectors than Q by one multiplication, and
        which of them lead is known without another round (Halko, Martinsson and Tropp 2011, section 4.5).
        """
        scale = self._item_scale(state)
        basis, strength = _left_directions(image * scale[:, None])
        leading = basis[:, : self.factors][:, strength[: self.factors] > NEGLIGIBLE * strength.max(initial=0.0)]
        change = 1.0 if state.round == 1 else _distance(state["basis"][:, : self.factors], basis[:, : self.factors])
        return state.updated(basis=basis, change=np.array(change), factors=_served(leading, scale))

    def _turned_noised(self, state: State, image: Floats, beyond: int) -> State:
        """The next basis from a denoised image in which `beyond` directions besides popularity stand out.

        Where none does the basis stays, and what is served is popularity.
        """
        if not beyond:
            return self._standing(state.updated(change=np.array(1.0)), image[:, :0], np.zeros(0))
        basis, strength = _left_directions(image * self._item_scale(state)[:, None])
        basis = basis[:, : beyond + 1]
        change = 1.0 if state.round == 1 else _distance(state["basis"], basis)
        after = state.updated(basis=basis, change=np.array(change))
        return self._standing(after, basis, strength[: beyond + 1])

    def _standing(self, state: State, vectors: Floats, strength: Floats) -> State:
        """What is served of directions that were found in noise, on the floor of popularity."""
        kept = strength > NEGLIGIBLE * strength.max(initial=0.0)
        scale = self._item_scale(state)
        factors = _served(sign_fixed(vectors[:, kept][:, : self.factors]), scale)
        largest = float((scale**2 * (factors**2).sum(axis=0)).max(initial=0.0))
        return state.updated(factors=factors, floor=floor(state["popularity"], largest))


def _left_directions(image: Floats) -> tuple[Floats, Floats]:
    """Left singular vectors and singular values, the leading ones first."""
    basis, upper = orthonormal(image)
    turn, strength, _ = np.linalg.svd(upper)
    return sign_fixed(basis @ turn), strength


def _served(vectors: Floats, scale: Floats) -> Scores:
    """V^T D: float32 [factors, items]."""
    return np.ascontiguousarray((vectors / scale[:, None]).T, np.float32)


def _distance(one: Floats, other: Floats) -> float:
    """Root mean square of the sines of the angles between two subspaces: 0 if equal, 1 if orthogonal."""
    cosines = np.linalg.svd(one.T @ other, compute_uv=False)
    return float(np.sqrt(np.mean(np.maximum(1.0 - cosines**2, 0.0))))
