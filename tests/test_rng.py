"""Streams are named: the same name gives the same draws, and every other name others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from coterie.rng import stream

NAMES = [(0,), (1,), (0, "a"), (0, "b"), (0, "ab"), (0, "a", "b"), (0, "a", 1), (0, "a", "1"), (0, "a1"), (0, 1, "a")]

KNOWN = [4118364016338008119, 1253783951035957005, 4100271118634918930, 4529864249455600978]


def draws(*name: str | int) -> list[int]:
    seed, *purpose = name
    return stream(int(seed), *purpose).integers(2**62, size=4).tolist()


def test_the_same_name_gives_the_same_draws() -> None:
    assert all(draws(*name) == draws(*name) for name in NAMES)


def test_different_names_give_different_draws() -> None:
    assert all(draws(*one) != draws(*other) for one, other in itertools.combinations(NAMES, 2))


def test_draws_do_not_change_between_releases() -> None:
    assert draws(0, "split", 3) == KNOWN


def test_numpy_scalars_name_the_same_stream_as_plain_values() -> None:
    assert draws(int(np.int64(7)), "client", 3) == draws(np.int64(7), np.str_("client"), np.int32(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("word", [1.5, None, b"a"])
def test_what_is_neither_text_nor_whole_is_no_name(word: object) -> None:
    with pytest.raises(TypeError):
        stream(0, word)  # type: ignore[arg-type]
