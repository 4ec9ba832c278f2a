"""Sums of matrix factorisation: what users add of their values, and what noised sums say (see `coterie.models.mf`).

A few rounds of averaging learn biases and little else, so under noise biases of implicit feedback start where counts
put them: at the mean target of an item that c_i rows have and that is drawn as a negative as often as any other,

    b_i = (c_i liked + m missing) / (c_i + m),    m = negatives * (sum of counts) / |I|

Scores then are in the order of popularity before the first update, and an update counts where something beyond it
stands out of the noise (`coterie.models.denoise`). Until one does, factors are zero: clients train from a random start
of which they know the seed.
"""

from __future__ import annotations

import math

import numpy as np

from coterie.models.base import clip_factors, kept_sums, shares
from coterie.models.denoise import denoised_rows
from coterie.models.kernels.mf_moments import COLUMNS, LOWEST, NORM, SHAPE, add_moments
from coterie.models.popularity import real_counts
from coterie.types import Floats, Integers, PartSpec, RoundSpec, Scores, State, Total, UserBlock

SURE = 4.0  # standard deviations by which a number of values must exceed none
COMMON = 0.02  # of all values: an octave with a smaller share is left out too
COUNTS = 0.3  # of the whole noise budget, for round 0: updates seldom say more than popularity


def add_user_moments(part: PartSpec, value: Floats, users: UserBlock, out: Integers) -> None:
    """Add the moments of each user's values; a user over a bound counts less, in all of them alike.

    How much less depends on the number of values alone, so that it favours neither high nor low ones.
    """
    known = np.isfinite(value)
    owner = np.repeat(np.arange(users.n_users), np.diff(users.user_ptr))[known]
    number = np.bincount(owner, minlength=users.n_users).astype(np.float64)
    add_moments(part, value[known], owner, clip_factors(NORM * number, number, part), out)


def noised_budget(rounds: int) -> tuple[float, ...]:
    """Shares of round 0 and of `rounds` rounds of updates."""
    return (COUNTS, *((1.0 - COUNTS) / rounds,) * rounds)


def counted_noised(spec: RoundSpec, state: State, total: Total, implicit: tuple[float, float], negatives: int) -> State:
    """The state after round 0: popularity, mean and deviation, and the biases of implicit feedback.

    `implicit` are mean and deviation of implicit targets; those of values come from the round.
    """
    counted = RoundSpec(spec.index, spec.kind, spec.parts[:2])
    counts, rows = real_counts(State(0, kept_sums(counted, total)))
    parameters, (mean, deviation) = state["parameters"].copy(), implicit
    if bool(state["explicit"]):
        mean, deviation = noised_moments(spec.part("moments"), total)
    else:
        parameters[:, -1] = start_of_biases(counts, negatives, (1.0 - mean) / deviation, -mean / deviation)
    parameters[:, :-1] = 0.0
    return state.updated(
        round=spec.index + 1,
        popularity=shares(counts, rows),
        parameters=parameters,
        mean=np.array(mean, np.float64),
        deviation=np.array(deviation, np.float64),
        trains=np.array(1, np.int64),
        popular_only=np.array(1, np.int64),
    )


def start_of_biases(counts: Floats, negatives: int, liked: float, missing: float) -> Scores:
    """The biases where implicit feedback starts, in deviations from the mean: float32 [items]."""
    drawn = negatives * float(counts.sum()) / max(len(counts), 1)
    if drawn <= 0.0:
        return np.zeros(len(counts), np.float32)
    biases: Scores = ((counts * liked + drawn * missing) / (counts + drawn)).astype(np.float32)
    return biases


def noised_step(state: State, total: Total) -> tuple[Floats, int]:
    """How the item rows move: the denoised updates over the weights, float64 like the rows; and how many directions of
    them stand out beyond popularity.

    Every item is drawn as a negative now and then, so that no weight is far below the mean; noise may say so.
    """
    delta = total.value("delta").reshape(state["parameters"].shape)
    found, beyond = denoised_rows(delta, total.noise_std["delta"], state["popularity"])
    weight, noise = total.value("weight"), total.noise_std["weight"]
    least = max(float(weight.mean()) / 2 if len(weight) else 0.0, 2.0 * noise)
    return found / np.maximum(weight, least)[:, None], beyond


def noised_moments(part: PartSpec, total: Total) -> tuple[float, float]:
    """Mean and deviation of values, from the octaves that surely hold some: (0, 1) where none does.

    See `coterie.models.kernels.mf_moments`; an octave that is left out hides rare values, and noise in it cannot move
    the mean by the size of a value that nobody has.
    """
    cells, noise = total.value(part.name).reshape(SHAPE), total.noise_std[part.name]
    number = cells[:, :, 0]
    kept = (number > SURE * noise) & (number > COMMON * float(number.max(initial=0.0)))
    if not kept.any():
        return 0.0, 1.0
    start, width = _octaves()
    place = np.clip(cells[:, :, 1], 0.0, number)
    high, both, low = (cells[:, :, c] for c in range(2, COLUMNS))
    square = np.clip(high + both / 2.0**10 + low / 2.0**22, place**2 / np.maximum(number, 1e-300), place)
    sign = np.array([[1.0], [-1.0]])
    known = float(number[kept].sum())
    mean = float((sign * (start * number + width * place))[kept].sum()) / known
    squares = float((start**2 * number + 2 * start * width * place + width**2 * square)[kept].sum()) / known
    variance = squares - mean * mean
    size = float((start + width)[kept.any(axis=0)].max())
    return mean, math.sqrt(variance) if variance > (size / 256) ** 2 else 1.0


def _octaves() -> tuple[Floats, Floats]:
    """Where each octave starts, and how wide it is: float64 [octaves]."""
    octave = np.arange(SHAPE[1])
    start = np.where(octave > 0, np.exp2(octave + (LOWEST - 1.0)), 0.0)
    return start, np.exp2(np.maximum(octave + (LOWEST - 1.0), LOWEST))
