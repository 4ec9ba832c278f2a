"""Item-to-item cosine: how often two items share a row, relative to how often each appears.

Sarwar et al., "Item-based Collaborative Filtering Recommendation Algorithms", WWW 2001; with G = X^T X,

    sim_ij = G_ij / (sqrt(G_ii G_jj) + shrinkage),   score(j) = sum over items i in the cart of sim_ij.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from coterie.models.gram import BinaryGramModel
from coterie.types import Floats


class Cosine(BinaryGramModel):
    """Item-to-item cosine similarity."""

    name: ClassVar[str] = "cosine"
    keeps_sums: ClassVar[bool] = True
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"shrinkage": (0.0, 5.0, 20.0, 100.0), "neighbours": (0, 50, 200)}

    shrinkage: float = Field(0.0, ge=0, description="Added to the denominator: distrusts pairs seen only a few times.")
    neighbours: int = Field(0, ge=0, description="Keep only each item's most similar items; 0 keeps all.")

    def under_noise(self, edge: float, shrunk: float) -> Cosine:
        return self.model_copy(update={"shrinkage": self.shrinkage * shrunk})

    def solve(self, gram: Floats, counts: Floats, rows: float) -> Floats:
        root = np.sqrt(np.diagonal(gram))
        scale = np.outer(root, root) + self.shrinkage
        weights = np.divide(gram, scale, out=gram, where=scale > 0)
        np.fill_diagonal(weights, 0.0)
        if 0 < self.neighbours < len(weights):
            cut = np.partition(weights, -self.neighbours, axis=1)[:, -self.neighbours]
            weights[weights < cut[:, None]] = 0.0
        return weights
