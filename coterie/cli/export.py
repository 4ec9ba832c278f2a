"""`coterie export`: a run's model for browsers and apps, where the basket then stays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.evaluate import Folder, Trust
from coterie.cli.options import at_least
from coterie.cli.output import JsonFlag, Output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coterie.serving.private.export import Exported, Format

FORMATS = ("browser", "onnx")
POOR = 0.8  # share of the exact suggestions, below which a person is warned


def export(
    run: Folder,
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="New or empty folder to write to.")],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="|".join(FORMATS),
            help="browser: for coterie-local.js. onnx: a graph for ONNX Runtime. Default: browser.",
            autocompletion=lambda: list(FORMATS),
        ),
    ] = "browser",
    neighbours: Annotated[
        int,
        typer.Option(
            "--neighbours",
            parser=at_least(1),
            metavar="INTEGER",
            help="browser: how many neighbours of each item are kept. Default: 50.",
        ),
    ] = 50,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Write a run's model in int8, with a signed manifest, for browsers and apps: there the basket stays."""
    from coterie.experiment.run import load
    from coterie.experiment.signing import MANIFEST
    from coterie.files import sha256_of
    from coterie.serving.private.export import export as write

    out = Output(json)
    opened = load(run, trust)
    made = write(opened, output, _format(format), neighbours=neighbours, fingerprint=sha256_of(run / MANIFEST))
    if made.overlap < POOR:
        hint = "; more --neighbours may help" if format == "browser" else ""
        out.warn(f"the exported model often suggests other items than the run itself{hint}")
    out.result(made.as_dict() | {"run": run, "signer": _signer(made)}, *_lines(made))


def _lines(made: Exported) -> Iterator[str]:
    from coterie.report.reading import size
    from coterie.serving.private.agreement import AT

    parts = ", ".join(f"{name} {size(bytes_)}" for name, bytes_ in made.sizes.items())
    yield f"wrote {made.folder}: {parts}"
    yield f"of the {AT} best suggestions {made.overlap:.1%} are those of the run itself ({_measured(made)})"
    yield f"signed by {_signer(made)}"
    yield from made.manifest["notes"]


def _measured(made: Exported) -> str:
    return str(made.manifest["agreement"]["measured_on"])


def _signer(made: Exported) -> str:
    from coterie.secure.keys import fingerprint

    return fingerprint(bytes.fromhex(made.manifest["public_key"]))


def _format(name: str) -> Format:
    """The format of this name; one that there is not is refused by the export itself."""
    from typing import cast

    return cast("Format", name)
