"""Whether a state that somebody else has sent is one that a model's kernels can be given.

Kernels do not check what they index, and clipping is written for numbers: a list of items that points beyond the
catalogue writes into foreign memory, and a NaN in a factor passes every bound on what a user adds. Whoever computes on
a state that another party sent asks here first. What the numbers say is not judged, only that they are numbers, and
that what refers to items does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from coterie.errors import ModelError
from coterie.types import Array, State

PER_ITEM = ("popularity", "floor", "counts", "mass", "own", "rank", "similarity_gain")
LARGEST = 2.0**100  # products of two such values and of their squares are still finite
_TRIANGLE = re.compile("gram(_[0-9]+)?")  # upper halves of item-item matrices, where no list says which entries
_LAST_AXIS = frozenset({"low", "link"})
_FACTORS_LAST = frozenset({"gfcf", "spectral"})


def check_state(name: str, state: State, start: State) -> None:
    """Refuse a state of the model `name` that its kernels cannot be given.

    Args:
        name: of the model, as the registry has it.
        state: what came.
        start: the state before the first round, as this party computes it.

    Raises:
        ModelError: an array of another kind, with NaN or values beyond `LARGEST`, of another shape than the catalogue
            demands, or that refers to items which do not exist; names it.
    """
    n = int(start["n_items"])
    if "n_items" not in state:
        raise ModelError(f"a state of model '{name}' does not say how many items there are")
    for key, array in state.arrays.items():
        _check_numbers(name, key, array)
        if key in start:
            _check_kept(name, key, array, start[key])
        if key in PER_ITEM:
            _demand(array.shape == (n,), name, key, f"is not one value for each of {n:,} items")
        elif (axes := _matrix_axes(name, key, array)) is not None:
            _demand(
                array.ndim >= len(axes) and all(array.shape[a] == n for a in axes), name, key, f"is not of {n:,} items"
            )
        if key.endswith("_ptr"):
            _check_lists(name, key, state.arrays, n)
        elif _TRIANGLE.fullmatch(key) and f"{key}_ptr" not in state:
            _demand(array.shape == (n * (n + 1) // 2,), name, key, f"is not half a matrix of {n:,} items")
    _check_places(name, state.arrays, n)


def _check_numbers(name: str, key: str, array: Array) -> None:
    _demand(array.dtype.kind in "fiub", name, key, "does not hold numbers")
    if array.dtype.kind == "f" and array.size:
        good = bool((np.abs(array) <= LARGEST).all())  # not so of a NaN either
        _demand(good, name, key, f"holds values beyond {LARGEST:.0e}, or that are no numbers")


def _check_kept(name: str, key: str, array: Array, begun: Array) -> None:
    """What a training begins with stays: whole numbers as they are, others in their shape."""
    same = array.shape == begun.shape and array.dtype == begun.dtype
    if same and array.dtype.kind != "f":
        same = bool(np.array_equal(array, begun))
    _demand(same, name, key, "is not what the training began with")


def _matrix_axes(name: str, key: str, array: Array) -> tuple[int, ...] | None:
    """Which axes of an array are the items; None for one that has none."""
    if key == "weights" and array.ndim >= 2:
        return (-2, -1)
    if key in _LAST_AXIS or (key == "factors" and name in _FACTORS_LAST):
        return (-1,)
    return (0,) if key in ("factors", "parameters", "weights", "background") else None


def _check_lists(name: str, key: str, arrays: Mapping[str, Array], n: int) -> None:
    """One list of items for each item: where it begins and ends, what is in it, and the values beside that."""
    ptr, base = arrays[key], key.removesuffix("_ptr")
    listed = arrays.get(f"{base}_item", arrays.get(base))
    good = ptr.dtype == np.int64 and ptr.shape == (n + 1,) and listed is not None and listed.dtype.kind in "iu"
    good = good and ptr[0] == 0 and bool((np.diff(ptr) >= 0).all())
    _demand(good, name, key, f"is not the bounds of {n:,} lists of items")
    assert listed is not None  # noqa: S101 - just demanded
    _demand(listed.shape == (int(ptr[-1]),), name, key, "has other bounds than its list of items")
    _demand(
        not len(listed) or 0 <= int(listed.min()) <= int(listed.max()) < n, name, key, "lists items that do not exist"
    )
    for other in (base, f"{base}s", f"{base}_value", *(["pairs"] if base == "partners" else [])):
        if other in arrays and arrays[other].ndim:
            _demand(arrays[other].shape == listed.shape, name, other, "is not one value for each listed item")


def _check_places(name: str, arrays: Mapping[str, Array], n: int) -> None:
    """Items by their position: each once, and none that does not exist."""
    for key in ("rank", "head"):
        if (places := arrays.get(key)) is None:
            continue
        good = places.ndim == 1 and places.dtype.kind in "iu" and len(np.unique(places)) == len(places)
        good = good and (not len(places) or 0 <= int(places.min()) <= int(places.max()) < n)
        _demand(good, name, key, "names items twice, or that do not exist")
    if "head" in arrays:
        for key in ("level", "basis"):
            _demand(
                key not in arrays or len(arrays[key]) == len(arrays["head"]), name, key, "is not of the items in 'head'"
            )
    if "level" in arrays and arrays["level"].size:
        _demand(float(arrays["level"].min()) >= 1 / LARGEST, name, "level", "holds values that are not positive")
    if "ground" in arrays and "parameters" in arrays:
        width = arrays["parameters"].shape[1]
        _demand(arrays["ground"].shape == (width, width), name, "ground", f"is not of {width} factors")
        _demand("pull" in arrays and arrays["pull"].shape == (width,), name, "pull", f"is not of {width} factors")


def _demand(good: bool, name: str, key: str, flaw: str) -> None:
    if not good:
        raise ModelError(f"a state of model '{name}' cannot be used: its array '{key[:40]}' {flaw}; have it sent again")
