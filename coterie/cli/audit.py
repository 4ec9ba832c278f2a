"""`coterie audit`: is what a run promises contradicted by what its training releases?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from coterie.cli.evaluate import Folder, Trust
from coterie.cli.options import at_least
from coterie.cli.output import JsonFlag, Output
from coterie.cli.progress import Listener
from coterie.errors import ConfigError

if TYPE_CHECKING:
    from coterie.audit.exposure import Exposure
    from coterie.audit.pipeline import Audit

CONTRADICTED = 1
"""Exit code of an audit that contradicts the claim."""


def audit(
    run: Folder,
    canaries: Annotated[
        int,
        typer.Option(
            "--canaries",
            parser=at_least(20),
            metavar="INTEGER",
            help="Made-up users, of whom about half take part: more of them see more. Default: 2000.",
        ),
    ] = 2000,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", parser=at_least(0), metavar="INTEGER", help="Seed of canaries and their coins. Default: 0."
        ),
    ] = 0,
    attack: Annotated[
        bool,
        typer.Option(
            "--attack", help="Also attack real users of the run: which items do they have, did they take part?"
        ),
    ] = False,
    trust: Trust = None,
    json: JsonFlag = False,
) -> int:
    """Train once more as the run did, with made-up users among the real ones, and see whether its promise holds up.

    The run's logs must be where they were. Nothing is charged and nothing is kept: what is released here is seen by the
    audit alone. Exits with 1 where the promise is contradicted.
    """
    out = Output(json)
    with Listener(out) as listener:
        found, exposed = _audited(run, canaries, seed, trust, attack=attack, listener=listener)
    content: dict[str, Any] = {"run": run, "audit": None if found is None else found.as_dict()}
    content["attack"] = None if exposed is None else exposed.as_dict()
    out.result(content, *_shown(found, exposed))
    return CONTRADICTED if found is not None and found.contradicted else 0


def _audited(
    run: Any, canaries: int, seed: int, trust: str | None, *, attack: bool, listener: Listener
) -> tuple[Audit | None, Exposure | None]:
    from coterie.audit.exposure import expose
    from coterie.audit.pipeline import audit_training
    from coterie.experiment.again import bench_of

    again = bench_of(run, trust, listener)
    bench, model = again.bench, again.run.model
    if not bench.plan.private and not attack:
        raise ConfigError(
            f"{run}: promises no differential privacy (epsilon = 'none'), so there is nothing to contradict; --attack "
            "shows what its sums give away"
        )
    found, exposed = None, None
    if bench.plan.private:
        listener("step", {"text": "training with canaries", "done": 0, "total": None})
        found = audit_training(
            model,
            bench.taught,
            bench.plan,
            bench.start(model),
            canaries=canaries,
            seed=seed,
            threads=bench.threads,
            rounds=bench.rounds,
        )
    if attack:
        listener("step", {"text": "attacking real users", "done": 0, "total": None})
        exposed = expose(
            model, bench.taught, bench.plan, bench.start(model), seed=seed, threads=bench.threads, rounds=bench.rounds
        )
    return found, exposed


def _shown(found: Audit | None, exposed: Exposure | None) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if found is not None:
        parts += [_claims(found), f"verdict: {found.verdict}", *(f"  - {reason}" for reason in found.reasons)]
        parts += ["what this audit cannot see:", *(f"  - {one}" for one in found.cannot_see)]
    if exposed is not None:
        parts.append(_attacks(exposed))
    return parts


def _claims(found: Audit) -> RenderableType:
    """What is claimed, and what was found beside it."""
    noise, measured = found.noise_found, found.measured_epsilon
    rows = [
        ("claimed epsilon", f"{found.claimed_epsilon:.3g} (delta {found.delta:.2g})"),
        ("charged epsilon", f"{found.charged_epsilon:.3g}"),
        ("at least, by guesses, whatever the mechanism", f"{found.bounds.epsilon:.2f}"),
        ("at least, by guesses, for Gaussian noise", f"{found.bounds.gaussian_epsilon:.2f}"),
        ("at least, by measured noise and effect", "-" if measured is None else f"{measured:.2f}"),
        ("measured noise over stated noise", "-" if noise is None else f"{noise[0]:.3f} to {noise[1]:.3f}"),
        ("canaries that took part, of all", f"{found.included:,} of {found.canaries:,}"),
        ("how strong the canaries were", f"{found.strength:.0%} of what bounds allow"),
        ("how well their coins were told (AUC)", f"{found.bounds.auc:.3f}"),
    ]
    return _table("What is promised, and what was found", ("", ""), rows)


def _attacks(exposed: Exposure) -> RenderableType:
    """What one user's part gives away."""
    rows = [(f"items, from '{one.part}'", f"{one.alone:.2f}", f"{one.noised:.2f}") for one in exposed.parts]
    rows.append(("items, from popularity alone", f"{exposed.popularity:.2f}", f"{exposed.popularity:.2f}"))
    rows.append(("taking part, median user", "1.00", f"{exposed.membership:.2f}"))
    rows.append(("taking part, most exposed user", "1.00", f"{exposed.membership_most:.2f}"))
    title = f"What {exposed.users} real users give away (AUC; 0.5: nothing)"
    return _table(title, ("to somebody who knows all others", "raw", "as released"), rows)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_header=any(columns))
    for at, name in enumerate(columns):
        table.add_column(name, justify="right" if at else "left")
    for row in rows:
        table.add_row(*(Text(one) for one in row))
    return table
