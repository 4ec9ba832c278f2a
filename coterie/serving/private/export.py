"""A run's model for where the basket is: a browser, an app, a partner's own service. Signed, with its sizes stated.

Exported is the model of the federation alone, never what one organisation keeps for itself. A run that claims an
epsilon and keeps statistics of single organisations without noise beside it is refused, and so is one whose noise was
simulated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from coterie import __version__
from coterie.errors import ConfigError, ModelError, closest
from coterie.experiment.request import require_empty
from coterie.experiment.run import Run
from coterie.experiment.signing import MANIFEST, sign_folder
from coterie.files import read_bytes, sha256_of, write_bytes
from coterie.models.mixing import MIX
from coterie.serving.acceptance import MIXES, PEERS_ONLY, SIMULATED, protects_peers_only, version_notes
from coterie.serving.private.agreement import agreement
from coterie.serving.private.browser_file import BrowserModel, popular_first
from coterie.serving.private.onnx_export import DenseModel
from coterie.types import Ragged, Scores

Format: TypeAlias = Literal["browser", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)
NEIGHBOURS = 50
LAYOUTS = {"browser": "coterie-browser-1", "onnx": "coterie-onnx-1"}


@dataclass(frozen=True)
class Exported:
    """A folder that was written: `sizes` are the bytes of its files by name, the manifest's among them."""

    folder: Path
    manifest: dict[str, Any]
    sizes: dict[str, int]

    @property
    def overlap(self) -> float:
        """The share of the exact suggestions that the exported model gives, too."""
        return float(self.manifest["agreement"]["overlap@10"])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "output": self.folder,
            "manifest": self.manifest,
            "sizes": self.sizes,
            "bytes": sum(self.sizes.values()),
        }


def export(
    run: Run, folder: Path, format: Format = "browser", *, neighbours: int = NEIGHBOURS, fingerprint: str | None = None
) -> Exported:
    """Write the model and its signed manifest.

    Args:
        run: whose model.
        folder: a new or empty one.
        format: for browsers (the layout is `coterie.serving.private.browser_file`'s) or as an ONNX graph.
        neighbours: for browsers, how many of each item are kept.
        fingerprint: of the run, if it is known: the SHA-256 of its manifest.

    Raises:
        ConfigError: the folder holds something, there is no such format, or `neighbours` is below 1.
        ModelError: the run must not be exported, or the format does not fit it.
        MissingExtra: the extra 'export' is not installed.
        EnvironmentFault: the folder cannot be written.
    """
    if format not in FORMATS:
        raise ConfigError(f"format must be one of {', '.join(FORMATS)}, got '{format}'{closest(format, FORMATS)}")
    if neighbours < 1:
        raise ConfigError(f"neighbours must be at least 1, got {neighbours}")
    refuse(run)
    require_empty(folder)
    known = _fingerprint(run) if fingerprint is None else fingerprint
    files, scores, more = _browser(run, neighbours) if format == "browser" else _onnx(run, known)
    for name, content in files.items():
        write_bytes(folder / name, content)
    sizes = {name: len(content) for name, content in files.items()}
    sign_folder(folder, _facts(run, format, known) | more | {"sizes": sizes, "agreement": agreement(run, scores)})
    manifest = read_bytes(folder / MANIFEST)
    return Exported(folder, json.loads(manifest), {**sizes, MANIFEST: len(manifest)})


def refuse(run: Run) -> None:
    """Refuse a run that must not leave for browsers or partners.

    Raises:
        ModelError: why it must not, and what can be exported instead.
    """
    where = "this run" if run.path is None else str(run.path)
    if (run.result.get("privacy") or {}).get("releasable", True) is False:
        raise ModelError(f"{where}: is not exported: {SIMULATED}; train it with noise from the operating system")
    if MIX in run.state or run.result.get("kept") in MIXES:
        raise ModelError(
            f"{where}: is not exported: it is one organisation's own model or mix; export the federation's model"
        )
    if protects_peers_only(run):
        raise ModelError(
            f"{where}: is not exported: {PEERS_ONLY}; export a run that keeps nothing of single organisations "
            "(coterie train --no-compare)"
        )


def _browser(run: Run, most: int) -> tuple[dict[str, bytes], Callable[[Ragged], Scores], dict[str, Any]]:
    """Files, what scores as they do (in the run's order of items), and what is to be said of them."""
    model, first = BrowserModel.of(run, most), popular_first(run)
    place = first.argsort()
    content = model.pack()
    name = f"model-{hashlib.sha256(content).hexdigest()[:16]}.bin"  # its name says its content: to be kept for ever

    def scores(cart: Ragged) -> Scores:
        return model.scores(Ragged(cart.ptr, place[cart.item].astype(cart.item.dtype)))[:, place]

    said = {"neighbours": most, "entries": len(model.near.item), "quantisation": "int8, a float32 step for each row"}
    return {name: content}, scores, said


def _onnx(run: Run, fingerprint: str | None) -> tuple[dict[str, bytes], Callable[[Ragged], Scores], dict[str, Any]]:
    model = DenseModel.of(run)
    titles = [run.catalogue.title(id) for id in run.items]
    items = json.dumps({"ids": list(run.items), "titles": titles}, ensure_ascii=False).encode()
    said = {"quantisation": "int8, a float32 step for each row", "largest_error_per_item": float(model.scale.max()) / 2}
    return {"model.onnx": model.pack(fingerprint or ""), "items.json": items}, model.scores, said


def _facts(run: Run, format: Format, fingerprint: str | None) -> dict[str, Any]:
    privacy = run.result.get("privacy") or {}
    return {
        "coterie": __version__,
        "layout": LAYOUTS[format],
        "model": run.model.name,
        "fingerprint": fingerprint,
        "items": len(run.items),
        "empty_basket": "rating" if run.model.predicts_values(run.state) else "popularity",
        "privacy": {name: privacy.get(name) for name in ("epsilon", "delta", "unit", "noise")},
        "notes": version_notes(run),
    }


def _fingerprint(run: Run) -> str | None:
    """The SHA-256 of a run's manifest; None for one that has none."""
    manifest = None if run.path is None else run.path / MANIFEST
    return None if manifest is None or not manifest.exists() else sha256_of(manifest)
