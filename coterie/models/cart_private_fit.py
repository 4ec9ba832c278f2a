"""The fit of the private cart model: from estimates of pairs and noisy popularity to item-item weights.

See `coterie.models.cart_private` for the formula and for what is summed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from coterie.errors import ModelError
from coterie.models.base import similarity_matrix
from coterie.models.gram import symmetric_inverse
from coterie.models.kernels.pairs import local_regressions, strongest_entries
from coterie.types import Array, Floats, Ragged, State

OWN = 1.5  # d_i, as a multiple of popularity
RIDGE = 0.2  # lambda, as a multiple of the cart model's
DISCOUNT = 0.2  # c, added to the cart model's
SURE = 0.6  # of the weights of a signal without noise: what noise touched counts less beside what a client knows itself
TEXT = 1.0  # all that texts add, over all that the sums add, at a signal as strong as the noise ...
MOST_TEXT, LEAST_TEXT = 20.0, 0.1  # ... as signal^-1.5 within these bounds
USUAL_TEXT = 0.06  # the cart model's own weight of texts, at which this holds
DOUBT = 40.0  # see `_floor_weight`
FLOOR = 0.03  # one user in round 1, over the mean weight
LEAST = 1e-6  # popularity where it is all there is: it orders items, and gives way to what a client knows itself


@dataclass(frozen=True, slots=True)
class Form:
    """How the model is solved from the sums: the cart model's own hyper-parameters.

    Up to `dense` items weights are a matrix; beyond, an item is predicted from at most `neighbours` others.
    """

    regularisation: float
    discount: float
    text: float
    dense: int
    neighbours: int

    @property
    def ridge(self) -> float:
        """Lambda of the private model."""
        return RIDGE * self.regularisation

    @property
    def push(self) -> float:
        """C of the private model."""
        return DISCOUNT + self.discount


def fit_private(state: State, form: Form) -> State:
    """Solve the model from the estimates: adds ``weights`` (or ``near``) and ``floor``.

    ``floor`` (float64 [items]) is what popularity adds to every score; ``similarity_gain`` (float64 [items]) is what
    the weight of texts is multiplied by, for each item that they lead to. Without a signal, or before the second round,
    texts and popularity are all there is.
    """
    signal, users, counts = _signal(state), users_of(state), mass_of(state)
    sure = SURE * signal / (1.0 + signal)
    dense = int(state["n_items"]) <= form.dense
    solved = (_all_weights if dense else _near_weights)(state, form) if signal else None
    strength = 0.0 if solved is None else sure * float(np.abs(solved[1]).sum())
    gain = _text_gain(state, form, signal, strength)
    floor = np.maximum(counts, 0.0) * (_floor_weight(state, solved[0]) * strength if solved and strength else LEAST)
    texts = similarity_matrix(state) @ sp.diags(form.text * gain) if gain.any() else None
    arrays = (_dense_arrays if dense else _near_arrays)(len(counts), solved, sure, texts)
    arrays |= {"popularity": np.clip(counts / users, 0.0, 1.0), "floor": floor, "similarity_gain": gain}
    return replace(state, arrays={**state.arrays, **arrays})


def _floor_weight(state: State, met: Array) -> float:
    """The weight of popularity, over the sum of all weights.

    Where texts told which pairs to ask for, pairs that were not asked for hardly matter, and popularity is weighed
    against the mean of all weights. As far as texts turn out to say nothing, it is weighed against the mean of those
    that were asked for, and the more heavily the weaker their signal and the fewer they are.
    """
    told, pairs = float(state["likeness"]), len(state["pair_item"])
    asked = min(2 * pairs / len(met) ** 2, 1.0)
    doubt = 1.0 + DOUBT * (1.0 - told) * (1.0 - asked) / float(state["signal"])
    return FLOOR * doubt * (told / len(met) ** 2 + (1.0 - told) / (2 * pairs))


def _all_weights(state: State, form: Form) -> tuple[Array, Floats]:
    """The items that were met in pairs, and their weights: int64 [met], float64 [met, met]."""
    row, column, value = _met(state)
    items, at = np.unique(np.concatenate([row, column]), return_inverse=True)
    a, b = at[: len(row)], at[len(row) :]
    mass = OWN * floored(state)[items]
    gram = np.zeros((len(items), len(items)))
    gram[a, b] = gram[b, a] = value
    own = np.maximum(mass, gram.max(axis=1, initial=0.0))
    ridge = form.ridge * np.sqrt(own)
    while (inverse := _inverse(gram, own + ridge)) is None:
        ridge *= 2.0
    inverse *= own**-form.push / -np.diagonal(inverse)
    np.fill_diagonal(inverse, 0.0)
    return items, inverse


def _inverse(gram: Floats, diagonal: Floats) -> Floats | None:
    """The inverse of `gram` with this diagonal, None where that is not positive definite."""
    matrix = gram.copy()
    np.fill_diagonal(matrix, diagonal)
    try:
        return symmetric_inverse(matrix, "cart")
    except ModelError:
        return None


def _near_weights(state: State, form: Form) -> tuple[Array, sp.csr_matrix]:
    """The items that were met in pairs, and what each adds to its neighbours: float64, by rows."""
    row, column, value = _met(state)
    n = int(state["n_items"])
    half = sp.csr_matrix((value, (row, column)), shape=(n, n))
    half.sort_indices()
    pairs = Ragged(half.indptr.astype(np.int64), half.indices.astype(np.int32))
    both = (half + half.T).tocsr()
    own = np.maximum(OWN * floored(state), np.asarray(both.max(axis=1).todense()).ravel())
    near = strongest_entries((both @ sp.diags(own**-0.5)).tocsr(), form.neighbours)
    nothing = np.zeros((n, 1), np.float32)
    weights, _ = local_regressions(near, pairs, half.data, own, form.ridge * np.sqrt(own), nothing)
    weights *= np.repeat(own**-form.push, np.diff(near.ptr))
    owner = np.repeat(np.arange(n), np.diff(near.ptr))
    return np.unique(np.concatenate([row, column])), sp.csr_matrix((weights, (near.item, owner)), shape=(n, n))


def _text_gain(state: State, form: Form, signal: float, strength: float) -> Floats:
    """What the weight of texts is multiplied by, for each item they lead to; zeros where there are none."""
    n = int(state["n_items"])
    if not form.text or not has_texts(state):
        return np.zeros(n)
    popular = floored(state) ** 0.25
    popular /= popular.max()
    if not strength:
        return popular
    share = float(np.clip((TEXT / signal) ** 1.5, LEAST_TEXT, MOST_TEXT) * state["likeness"])
    return popular * (share * strength / USUAL_TEXT / float((similarity_matrix(state) @ popular).sum()))


def _dense_arrays(
    n: int, solved: tuple[Array, Floats] | None, sure: float, texts: sp.csr_matrix | None
) -> dict[str, Array]:
    weights = np.zeros((n, n), np.float32)
    if solved is not None:
        weights[np.ix_(solved[0], solved[0])] = sure * solved[1]
    if texts is not None:
        entries = texts.tocoo()
        weights[entries.row, entries.col] += entries.data.astype(np.float32)
    return {"weights": weights}


def _near_arrays(
    n: int, solved: tuple[Array, sp.csr_matrix] | None, sure: float, texts: sp.csr_matrix | None
) -> dict[str, Array]:
    both = sp.csr_matrix((n, n)) if solved is None else sure * solved[1]
    both = (both if texts is None else both + texts).tocsr()
    both.sort_indices()
    return {
        "near": both.data.astype(np.float32),
        "near_item": both.indices.astype(np.int32),
        "near_ptr": both.indptr.astype(np.int64),
    }


# --- reading a state --------------------------------------------------------------------------------------------------


def _met(state: State) -> tuple[Array, Array, Floats]:
    """The pairs whose estimate is not zero, and the estimates."""
    row, column = ends_of(pairs_of(state))
    value = state["pair_value"].astype(np.float64)
    return row[value != 0], column[value != 0], value[value != 0]


def _signal(state: State) -> float:
    """Signal over noise of the pairs; 0 before they are summed, and where no pair of this catalogue was met."""
    return float(state["signal"]) if "signal" in state and state["pair_value"].any() else 0.0


def has_texts(state: State) -> bool:
    """Whether any two items have similar texts."""
    return "similarity" in state and len(state["similarity"]) > 0


def pairs_of(state: State) -> Ragged:
    """The pairs of round 2: for each item the items before it that it is paired with."""
    return Ragged(state["pair_ptr"], state["pair_item"])


def ends_of(pairs: Ragged) -> tuple[Array, Array]:
    """The two items of each pair: int64 [pairs] each, the larger first."""
    return np.repeat(np.arange(len(pairs)), np.diff(pairs.ptr)), pairs.item.astype(np.int64)


def noise_of(state: State, part: str) -> float:
    """Standard deviation of the noise of a part, in real units."""
    return float(state[f"{part}_noise"]) if f"{part}_noise" in state else 0.0


def mass_of(state: State) -> Floats:
    """Noisy popularity, in units of round 1: float64 [items]."""
    mass: Floats = state["counts"] / float(state["counts_scale"])
    return mass


def floored(state: State) -> Floats:
    """Noisy popularity, not below what noise alone would show, nor one user with four items."""
    return np.maximum(mass_of(state), max(noise_of(state, "counts"), 0.5))


def users_of(state: State) -> float:
    """About how many users there are: at least one."""
    return max(float(state["rows"][0]) / float(state["rows_scale"]), 1.0)
