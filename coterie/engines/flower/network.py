"""Both ends of a federation's network: `CoordinatorNet` with its SuperLink, `NodeNet` with its SuperNode."""

from __future__ import annotations

from coterie.engines.flower.coordinator import CoordinatorNet, Limits, TlsFiles
from coterie.engines.flower.node import NodeNet

__all__ = ["CoordinatorNet", "Limits", "NodeNet", "TlsFiles"]
