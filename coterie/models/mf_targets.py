"""Targets of matrix factorisation: what a value, or an item that somebody has, asks of the factors."""

from __future__ import annotations

import numpy as np

from coterie.models.kernels.mf import Ratings
from coterie.types import Array, Floats, Known, State

FAR = 5.0  # deviations from the mean: a value that is farther off counts as this far, so that no value can be wild


def standard(state: State, value: Floats) -> Floats:
    """Values in deviations from the mean, at most `FAR`; what is not finite is not known: NaN."""
    known = np.where(np.isfinite(value), value, np.nan)
    return np.clip((known - float(state["mean"])) / float(state["deviation"]), -FAR, FAR)


def entries(state: State, known: Known) -> tuple[Ratings, Floats]:
    """What is known as targets of a fold-in, standardised and without the item's bias, and their weights."""
    lists, number = known.items, len(known.items.item)
    bias = state["parameters"][lists.item, -1].astype(np.float64)
    if bool(state["explicit"]):
        value = np.full(number, np.nan) if known.value is None else known.value.astype(np.float64)
        asked = standard(state, value)
        target = np.where(np.isfinite(asked), asked - bias, 1.0)
    else:
        target = (1.0 - float(state["mean"])) / float(state["deviation"]) - bias
    amount = np.ones(number) if known.amount is None else known.amount
    return Ratings(lists.ptr, lists.item, target.astype(np.float32)), amount


def ground(state: State) -> tuple[Floats, Floats]:
    """What unobserved items add to a fold-in, for each interaction: its matrix and its right side."""
    if "ground" in state:
        return state["ground"], state["pull"]
    width = state["parameters"].shape[1]
    return np.zeros((width, width)), np.zeros(width)


def with_one(rows: Array) -> Floats:
    """(q_i, 1): what a user's row is multiplied by."""
    found: Floats = rows.astype(np.float64)
    found[:, -1] = 1.0
    return found
