"""A model as an ONNX graph: baskets in, scores of all items out, with weights in int8.

Input ``basket`` float32 [batch, items], 1 where the basket holds the item; output ``scores`` float32 [batch, items], in
the order of ``items.json``. Row i of the weights has a step of its own (DequantizeLinear): each entry is within half a
step of the exact one, so a score is within half the sum of the steps of the basket's items. A basket without items gets
popularity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coterie import __version__
from coterie.errors import MissingExtra, ModelError
from coterie.experiment.run import Run
from coterie.serving.private.quantise import added, blank, related_blocks, to_int8
from coterie.types import Array, Ragged, Scores

if TYPE_CHECKING:
    from onnx import ModelProto

MOST_ITEMS = 10_000  # its weights have 100 MB
OPSET, IR = 17, 8  # which every onnxruntime since 1.12 reads


@dataclass(frozen=True, eq=False)
class DenseModel:
    """`value` (int8 [items, items]) times `scale` (float32 [items], of each row) are the item-to-item scores."""

    value: NDArray[np.int8]
    scale: Scores
    added: Scores
    blank: Scores

    @classmethod
    def of(cls, run: Run) -> DenseModel:
        """The federation's model of a run.

        Raises:
            ModelError: the catalogue is too large.
        """
        n = len(run.items)
        if n > MOST_ITEMS:
            raise ModelError(
                f"an ONNX graph over {n:,} items would have {n * n / 1e6:,.0f} MB of weights, and is written for at "
                f"most {MOST_ITEMS:,} items; take --format browser, which keeps each item's neighbours alone"
            )
        value, scale = np.empty((n, n), np.int8), np.empty(n, np.float32)
        for start, rows in related_blocks(run):
            value[start : start + len(rows)], scale[start : start + len(rows)] = to_int8(rows)
        return cls(value, scale, added(run), blank(run))

    def scores(self, cart: Ragged) -> Scores:
        """What the graph gives for each basket: float32 [baskets, items]."""
        out = np.empty((len(cart), len(self.scale)), np.float32)
        for row, scores in enumerate(out):
            items = cart[row]
            scores[:] = (
                self.scale[items] @ self.value[items].astype(np.float32) + self.added if len(items) else self.blank
            )
        return out

    def pack(self, fingerprint: str) -> bytes:
        """The file; `fingerprint` of the run is kept in its metadata.

        Raises:
            MissingExtra: the extra 'export' is not installed.
        """
        try:
            import onnx
        except ModuleNotFoundError:
            raise MissingExtra("coterie export --format onnx", "export") from None
        model = self._graph()
        onnx.helper.set_model_props(model, {"fingerprint": fingerprint})
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)

    def _graph(self) -> ModelProto:
        from onnx import TensorProto, helper, numpy_helper

        n = len(self.scale)
        constants: dict[str, Array] = {
            "weights": self.value,
            "steps": self.scale,
            "added": self.added,
            "popularity": self.blank,
            "items": np.array([1], np.int64),
            "nothing": np.array(0.0, np.float32),
        }
        nodes = [
            helper.make_node("DequantizeLinear", ["weights", "steps"], ["related"], axis=0),
            helper.make_node("MatMul", ["basket", "related"], ["together"]),
            helper.make_node("Add", ["together", "added"], ["known"]),
            helper.make_node("ReduceSum", ["basket", "items"], ["size"], keepdims=1),
            helper.make_node("Greater", ["size", "nothing"], ["holds"]),
            helper.make_node("Where", ["holds", "known", "popularity"], ["scores"]),
        ]
        graph = helper.make_graph(
            nodes,
            "coterie",
            [helper.make_tensor_value_info("basket", TensorProto.FLOAT, ["batch", n])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", n])],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR, producer_name="coterie", producer_version=__version__
        )
