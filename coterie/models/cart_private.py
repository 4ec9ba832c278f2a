"""The cart model under differential privacy per user: few noisy numbers, chosen well, and public texts.

Two rounds, each user's part at norm 1 whatever the user has bought:

    round 1   popularity: u sends x_u / n_u^(1/2) (x_u: the n_u items that u has bought), and 1 to be counted
    server    chooses the pairs worth asking for, from noisy popularity and public texts: with texts those with the
              largest sim_ij (m_i m_j)^(1/4), without texts all pairs of the most popular items
    round 2   u sends sum over baskets b of |b|^(-1/2) [i and j in b] for these pairs, scaled to norm 1

A user's norm is spent on pairs that were chosen, so fewer pairs mean more signal in each. Nearly all strong partners of
an item have similar texts: of millions of pairs, texts leave some ten thousand. The server removes noise
(`coterie.models.pair_denoise`), and solves the cart model on what is left,

    P = (C + diag(d + lambda d^(1/2)))^-1,    B_ij = -P_ij / P_jj d_j^(-c),

where C holds the estimates, d follows popularity, and the ridge is doubled until the matrix is positive definite.
Similar texts are added with a weight that grows as the signal of the sums fades. Where no signal can be told from
noise, nothing but texts and popularity is left: the model falls back by itself, from noised sums and their noise alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from coterie.models.base import MARGIN, kept_sums, narrow_items, similarity_matrix
from coterie.models.cart_private_fit import ends_of, floored, has_texts, mass_of, noise_of, pairs_of, users_of
from coterie.models.gram import FRACTION, row_weights
from coterie.models.kernels.gram import add_counts
from coterie.models.kernels.private_cart import add_bounded_pairs
from coterie.models.pair_denoise import expected, posterior, signal_to_noise, slopes, spectral
from coterie.models.rows import rows_of
from coterie.ring import Accumulator
from coterie.types import (
    Array,
    Floats,
    Items,
    PartSpec,
    Ragged,
    RoundSpec,
    State,
    Total,
    UserBlock,
)

# Chosen in advance, on validation cases of public basket logs, and the same for all data.
POPULARITY_SHARE = 0.15  # of the budget, for round 1
PAIRS, HEAD = 75.0, 1.0  # pairs with similar texts, and most popular items: these times (users / noise)^GROWTH
GROWTH = 0.7
UNLIKE = 0.15  # the similarity of texts that are not similar: those below 0.2 are not kept (`coterie.models.text`)
INDIFFERENT = 0.5  # pairs are met in proportion to sim^this where texts are of no use (names of groceries: 0.3) ...
TELLING = 0.75  # ... and to sim^(this more) where they tell what goes together (a gift shop's: 1.3 to 1.7)
MOST_SIGNAL = 1e6  # a number that a file can hold: beyond it noise no longer matters
CARRIED = [f"{part}_{fact}" for part in ("counts", "rows", "pairs") for fact in ("scale", "noise", "bound")]
CARRIED += ["noise_multiplier", "max_users", "rows", "signal", "likeness"]


def is_private(state: State) -> bool:
    """Whether the state belongs to a training with noise."""
    return "noise_multiplier" in state


def private_budget() -> tuple[float, float]:
    """How the two rounds share the noise."""
    return POPULARITY_SHARE, 1.0 - POPULARITY_SHARE


# --- what is summed ---------------------------------------------------------------------------------------------------


def next_private_round(state: State) -> RoundSpec | None:
    """Popularity, then the pairs."""
    if state.round == 0:
        return _popularity_round(int(state["n_items"]))
    if state.round == 1 and len(state["pair_item"]):
        return _pair_round(len(state["pair_item"]))
    return None


def heaviest_private_round(state: State) -> RoundSpec:
    """The round that sends most, if there are as many users as there may be."""
    pairs = _pair_round(_budget(state, float(state["max_users"]), PAIRS))
    return max(_popularity_round(int(state["n_items"])), pairs, key=lambda spec: sum(part.size for part in spec.parts))


def add_private_sums(spec: RoundSpec, state: State, users: UserBlock, exponent: float, out: Accumulator) -> None:
    """Per user: scale to the bounds of each part, truncate towards zero, add integers."""
    if spec.index == 1:
        row_ptr, rows = rows_of(users, "basket")
        part = spec.part("pairs")
        add_bounded_pairs(row_ptr, rows, row_weights(rows, exponent), pairs_of(state), part, out["pairs"])
        return
    counts, one = spec.part("counts"), spec.part("rows")
    _, bought = rows_of(users, "user")
    size = np.diff(bought.ptr)
    each = np.minimum(counts.l2 / np.sqrt(np.maximum(size, 1)), counts.linf)
    add_counts(bought, np.floor(counts.scale * MARGIN * each).astype(np.int64), out["counts"])
    out["rows"][0] += int(np.floor(one.scale * min(one.l2, one.linf))) * int((size > 0).sum())


def apply_private(spec: RoundSpec, state: State, total: Total) -> State:
    """After round 1 choose the pairs, after round 2 estimate them; the fit is the caller's."""
    after = state.updated(round=spec.index + 1, **kept_sums(spec, total))
    if spec.index == 1:
        return _estimated(after)
    chosen = _chosen(after)
    return after.updated(popularity=_shares(after), pair_ptr=chosen.ptr, pair_item=chosen.item)


def private_without(state: State, own: Mapping[str, Array]) -> State:
    """The state without the sums `own`, over the same pairs: what a client has learned from others; fit comes next."""
    sums: dict[str, Array] = {name: state[name].astype(np.int64) - sent for name, sent in own.items()}
    rest = State(state.round, {**state.arrays, **sums})
    rest = rest.updated(popularity=_shares(rest))
    return _estimated(rest) if "pairs" in rest else rest


def _shares(state: State) -> Floats:
    shares: Floats = np.clip(mass_of(state) / users_of(state), 0.0, 1.0)
    return shares


# --- the choice of pairs ----------------------------------------------------------------------------------------------


def _chosen(state: State) -> Ragged:
    """The pairs of round 2: for each item the items before it in the catalogue that it is paired with."""
    mass, n, users = floored(state), int(state["n_items"]), users_of(state)
    if not has_texts(state):
        head = min(_budget(state, users, HEAD), n)
        return _paired(*_among(_most_popular(mass, head)), n)
    near = sp.tril(similarity_matrix(state), -1).tocoo()
    worth = np.cbrt(near.data.astype(np.float64)) * (mass[near.row] * mass[near.col]) ** 0.25
    most = _budget(state, users, PAIRS)
    best = np.argsort(-worth, kind="stable")[:most]
    row, column = near.row[best].astype(np.int64), near.col[best].astype(np.int64)
    # Where there are fewer similar texts than pairs can be asked for, the rest goes to the most popular items.
    head = min(int(np.sqrt(2.0 * (most - len(best)))), n)
    others = _among(_most_popular(mass, head))
    return _paired(np.concatenate([row, others[0]]), np.concatenate([column, others[1]]), n)


def _budget(state: State, users: float, factor: float) -> int:
    """How many pairs (or popular items) the sums of so many users can tell from noise."""
    noise = float(state["noise_multiplier"]) / np.sqrt(private_budget()[1])
    return int(np.ceil(factor * (users / noise) ** GROWTH))


def _most_popular(mass: Floats, head: int) -> Array:
    return np.sort(np.argsort(-mass, kind="stable")[:head])


def _among(items: Array) -> tuple[Array, Array]:
    """All pairs of `items` (ascending), the larger first."""
    row, column = np.tril_indices(len(items), -1)
    return items[row], items[column]


def _paired(row: Array, column: Array, n: int) -> Ragged:
    """Pairs as lists by the larger item, each pair once."""
    pairs = sp.csr_matrix((np.ones(len(row), np.int8), (row, column)), shape=(n, n))
    pairs.sum_duplicates()
    pairs.sort_indices()
    return Ragged(pairs.indptr.astype(np.int64), pairs.indices.astype(np.int32))


# --- what the sums say ------------------------------------------------------------------------------------------------


def _estimated(state: State) -> State:
    """Adds ``pair_value`` (float32: an estimate for each pair), ``signal`` (over noise) and ``likeness``.

    ``likeness`` says how much more often pairs are met the more similar their texts are: the weight of texts rests on
    it, between 0 (texts say nothing of what goes together) and 1.
    """
    sums, std = state["pairs"] / float(state["pairs_scale"]), noise_of(state, "pairs")
    signal, likeness = signal_to_noise(sums, std), 0.0
    if signal == 0.0:
        values = np.zeros(len(sums))
    elif has_texts(state):
        values, likeness = _around_similar(state, sums, std)
    else:
        values = _by_directions(pairs_of(state), sums, std)
    return state.updated(
        pair_value=values.astype(np.float32),
        signal=np.array(min(signal, MOST_SIGNAL), np.float64),
        likeness=np.array(likeness, np.float64),
    )


def _around_similar(state: State, sums: Floats, std: float) -> tuple[Floats, float]:
    """Estimates that start from pairs as popular and as similar, and what similarity says."""
    row, column = ends_of(pairs_of(state))
    mass = floored(state)
    near = np.asarray(similarity_matrix(state)[row, column], np.float64).ravel()
    similar = np.log(np.where(near > 0, np.cbrt(near), UNLIKE))
    features = (np.log(mass[row] * mass[column]), similar)
    slope, error = slopes(sums, features, std)
    likeness = float(np.clip((slope[1] + error[1] - INDIFFERENT) / TELLING, 0.0, 1.0))
    return posterior(sums, expected(sums, features), std), likeness


def _by_directions(pairs: Ragged, sums: Floats, std: float) -> Floats:
    """The estimate of a pair follows from the directions in which all pairs of the head stand out of the noise."""
    row, column = ends_of(pairs)
    head, at = np.unique(np.concatenate([row, column]), return_inverse=True)
    matrix = np.zeros((len(head), len(head)))
    a, b = at[: len(row)], at[len(row) :]
    matrix[a, b] = matrix[b, a] = sums
    return spectral(matrix, std)[a, b]


# --- the model elsewhere ----------------------------------------------------------------------------------------------


def restricted_private(state: State, items: Items) -> State:
    """The sums and estimates on the sub-catalogue `items`; the fit is the caller's."""
    arrays: dict[str, Array] = dict(narrow_items(items, state))
    arrays |= {name: state[name] for name in CARRIED if name in state}
    arrays["counts"] = state["counts"][items]
    if "pair_item" in state:
        place = np.full(int(state["n_items"]), -1, np.int64)
        place[items] = np.arange(len(items))
        row, column = ends_of(pairs_of(state))
        kept = (place[row] >= 0) & (place[column] >= 0)
        sizes = np.bincount(place[row[kept]], minlength=len(items))
        arrays["pair_ptr"] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        arrays["pair_item"] = place[column[kept]].astype(np.int32)
        arrays |= {name: state[name][kept] for name in ("pairs", "pair_value") if name in state}
    return State(state.round, arrays)


def mixed_private(state: State, own: State, weight: float) -> State:
    """The mix of two states with all weights, of which the first knows noisy sums alone: scores are linear in both."""
    ends = {}
    for name in ("weights", "popularity", "floor", "similarity_gain"):
        other = own[name] if name in own else np.full(len(state["popularity"]), float(name == "similarity_gain"))
        ends[name] = ((1.0 - weight) * state[name] + weight * other).astype(state[name].dtype)
    public = {k: state[k] for k in ("n_items", "similarity_ptr", "similarity_item", "similarity") if k in state}
    return State(state.round, {**public, **ends})


def _popularity_round(n_items: int) -> RoundSpec:
    counts = PartSpec("counts", (n_items,), "dense", 1.0, 1.0, FRACTION, 0.95)
    return RoundSpec(0, "user_sum", (counts, PartSpec("rows", (1,), "dense", 1.0, 1.0, FRACTION, 0.05)))


def _pair_round(pairs: int) -> RoundSpec:
    return RoundSpec(1, "user_sum", (PartSpec("pairs", (pairs,), "dense", 1.0, 1.0, FRACTION),))
