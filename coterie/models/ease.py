"""EASE: a linear autoencoder with a zero diagonal, in closed form.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019: with G = X^T X and P = (G + lambda I)^-1,

    B_ij = -P_ij / P_jj,   B_jj = 0,   score(j) = sum over known items i of B_ij.

G is a sum over users, so the federated model equals the centralised one. Under noise the ridge is raised by half of
what noise alone could make of an eigenvalue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from coterie.models.gram import BinaryGramModel, symmetric_inverse
from coterie.types import Floats


class Ease(BinaryGramModel):
    """EASE (Steck 2019)."""

    name: ClassVar[str] = "ease"
    keeps_sums: ClassVar[bool] = True
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"regularisation": (100.0, 300.0, 800.0, 2000.0)}

    regularisation: float = Field(800.0, gt=0, description="Ridge: larger is smoother (lambda in the formula).")

    def under_noise(self, edge: float, shrunk: float) -> Ease:
        return self.model_copy(update={"regularisation": self.regularisation * shrunk + edge / 2})

    def solve(self, gram: Floats, counts: Floats, rows: float) -> Floats:
        np.fill_diagonal(gram, np.diagonal(gram) + self.regularisation)
        inverse = symmetric_inverse(gram, "ease")
        inverse /= -np.diagonal(inverse).copy()
        np.fill_diagonal(inverse, 0.0)
        return inverse
