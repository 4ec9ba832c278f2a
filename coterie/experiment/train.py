"""Train, compare, write a run: where the pieces meet.

    read -> clean -> split -> [selection: fit on train, choose on validation] -> final: fit on train + validation
         -> what each client serves -> compare on the test -> run folder, signed

A killed training continues from the last finished round (`resume`) and ends with the same model file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import tomli_w

from coterie.data.log import InteractionLog
from coterie.data.splits import Given, HeldOut
from coterie.errors import ConfigError, RunError
from coterie.evaluation.metrics import evaluate
from coterie.experiment.cases import CaseTable, FitData, tabulate
from coterie.experiment.compare import (
    METRIC,
    ClientStates,
    Comparison,
    compare_devices,
    compare_silos,
    headline,
    summarise,
)
from coterie.experiment.estimate import estimate, memory_of_machine, state_bytes
from coterie.experiment.fitting import Bench, Notify, choose_mix, public_of, scorer, silent, tune
from coterie.experiment.outputs import ROUNDS_FILE, write_reports
from coterie.experiment.prepare import Prepared, prepare, read_inputs
from coterie.experiment.run import ClientModel, Run
from coterie.experiment.tidy import finite
from coterie.federation.checkpoint import Checkpoints
from coterie.federation.mix import DEFAULT_WEIGHT, MixChoice
from coterie.files import append_line, read_bytes, sha256_of, write_text
from coterie.models.base import Model
from coterie.models.registry import build
from coterie.privacy.plan import Plan
from coterie.settings import Settings, read_toml
from coterie.settings import build as build_settings
from coterie.types import RoundSpec, State, Total


@dataclass(frozen=True)
class Trained:
    """A finished training: the run, its folder (None in memory) and the object that ``--json`` prints."""

    run: Run
    path: Path | None
    result: dict[str, Any]


@dataclass(frozen=True)
class Choices:
    """What validation decided: the model's hyper-parameters and each silo's mix."""

    model: Model
    mixes: Mapping[str, MixChoice]
    trials: list[dict[str, Any]]


def run_training(
    settings: Settings, *, accept_proposal: bool = False, resume: Path | None = None, notify: Notify = silent
) -> Trained:
    """Train as `settings` say, from files to a signed run folder.

    Args:
        settings: what to do; with `resume` those of the interrupted run are used instead.
        accept_proposal: take the proposed column mapping where none is given.
        resume: folder of an interrupted run.
        notify: told of progress: "step", "estimate", "cleaning", "note", "warning".

    Raises:
        CoterieError: bad input or settings (nothing is written then), or a fault of the machine (resume later).
    """
    if resume is not None:
        settings, accept_proposal = _resumed(resume, settings)
    build(settings.model)
    log, given, candidates = read_inputs(settings, accept_proposal=accept_proposal)
    folder = resume or _new_folder(settings)
    if resume is None:
        _write_request(folder, settings, accept_proposal)
    return train_log(log, settings, given=given, candidates=candidates, folder=folder, notify=notify)


def train_log(
    log: InteractionLog,
    settings: Settings,
    *,
    plan: Plan | None = None,
    given: dict[str, Given] | None = None,
    candidates: pl.DataFrame | None = None,
    folder: Path | None = None,
    notify: Notify = silent,
) -> Trained:
    """Train on a log that is in memory; with `folder` the run is written there and signed."""
    started = time.perf_counter()
    model, plan = build(settings.model), plan or Plan(**settings.plan.model_dump())
    notify("step", {"text": "cleaning and splitting", "done": 0, "total": None})
    prepared = prepare(log, settings, given or {}, candidates)
    work = _Work(settings, plan, prepared, folder, notify)
    choices = work.choose(model)
    bench, report = work.bench(choices.model, with_validation=True)
    notify("cleaning", {"entries": report.as_dicts()})
    work.announce(choices.model, bench)
    state = bench.federated(choices.model, work.checkpoint("final"), work.after_round("final", choices.model, bench, None))
    trained_at = time.perf_counter()
    comparison, clients = work.compare(choices, bench, state)
    run = Run(choices.model, state, bench.fit.catalogue, {}, clients)
    timing = {"train_s": trained_at - started, "evaluate_s": time.perf_counter() - trained_at}
    run.result = work.result(run, choices, bench, comparison, report.as_dicts(), timing)
    if folder is not None:
        notify("step", {"text": "writing the run folder", "done": 0, "total": None})
        run.write_model(folder)
        write_reports(folder, run.result, headline(settings.evaluation.at))
        work.checkpoints.clear()
        run.sign(folder)
    return Trained(run, folder, run.result)


class _Work:
    """The steps of one training; everything that lasts is in the run folder, so that a second process can go on."""

    def __init__(self, settings: Settings, plan: Plan, prepared: Prepared, folder: Path | None, notify: Notify) -> None:
        self.settings, self.plan, self.prepared, self.folder, self.notify = settings, plan, prepared, folder, notify
        self.checkpoints = Checkpoints((folder or Path()) / "checkpoint")

    def bench(self, model: Model, *, with_validation: bool) -> tuple[Bench, Any]:
        log, report = self.prepared.fit_log(with_validation=with_validation)
        fit, run, wanted = FitData.of(log), self.settings.run, self.settings.evaluation.catalogue
        silos = len(fit.population) > 1 and not fit.population.one_user_each
        own = wanted == "own" or (wanted == "auto" and silos)
        bench = Bench(fit, self.plan, run.threads, run.block, run.seed, own and silos, self.notify)
        return replace(bench, public=public_of(model, fit)), report

    def checkpoint(self, stage: str) -> State | None:
        return None if self.folder is None else self.checkpoints.load(stage)

    def choose(self, model: Model) -> Choices:
        """Selection: fit on the training part alone, decide on validation; decisions survive a restart."""
        wants_tuning, held = bool(self.settings.model.get("tune", False)), self.prepared.split.valid
        if wants_tuning and held is None:
            raise ConfigError("tune = true chooses on validation, but nothing is held out for it; set --valid-share or --valid")
        if held is None or not len(held.cases):
            return Choices(model, {}, [])
        kept = None if self.folder is None else self.folder / "checkpoint" / "choices.json"
        if kept is not None and kept.exists():
            return _read_choices(kept)
        bench, _ = self.bench(model, with_validation=False)
        cases = table_of(held, bench)
        model, trials = tune(model, bench, cases, METRIC, self._k()) if wants_tuning else (model, [])
        state = bench.federated(model, self.checkpoint("selection"), self.after_round("selection", model, bench, cases))
        choices = Choices(model, self._choose_mixes(model, bench, state, cases), trials)
        if kept is not None:
            write_text(kept, json.dumps(_choices_dict(choices)))
        return choices

    def announce(self, model: Model, bench: Bench) -> None:
        """Say what the training will need before it starts."""
        compare = self.settings.evaluation.compare and self.prepared.split.test is not None
        sizes = [len(bench.items_of(c)) for c in range(len(bench.people))] if bench.silos and compare else []
        need = estimate(model, bench.people, self.plan.ring_bits, sizes, 1 + int(compare))
        sentence = f"{len(bench.people):,} clients, {len(bench.fit.catalogue):,} items: {need.sentence()}"
        self.notify("estimate", {"memory_bytes": need.memory_bytes, "upload_bytes": need.upload_bytes,
                                 "seconds": need.seconds, "sentence": sentence})  # fmt: skip
        machine = memory_of_machine()
        if machine is not None and need.memory_bytes > 0.8 * machine:
            self.notify("warning", {"text": f"this needs most of the machine's memory ({machine / 1e9:.0f} GB)"})

    def after_round(self, stage: str, model: Model, bench: Bench, valid: CaseTable | None) -> Any:
        """Checkpoint and log each round; where there are validation cases, measure on them."""

        def keep(spec: RoundSpec, total: Total, state: State) -> None:
            measured = None
            if valid is not None:
                at = self.settings.evaluation.at
                measured = evaluate(scorer(model, state), valid.all(), at, len(bench.fit.catalogue)).means()
            record = finite({
                "stage": stage,
                "round": spec.index,
                "clients": total.finishers,
                "upload_bytes_per_client": total.upload_bytes,
                "validation": measured,
            })  # fmt: skip
            if self.folder is not None:
                self.checkpoints.save(stage, state)
                append_line(self.folder / ROUNDS_FILE, json.dumps(record))

        return keep

    def compare(self, choices: Choices, bench: Bench, state: State) -> tuple[Comparison | None, dict[str, ClientModel]]:
        """Train what is compared, measure it on the test, and keep what each client will serve."""
        held, evaluation = self.prepared.split.test, self.settings.evaluation
        cases = None if held is None else table_of(held, bench)
        model, kept = choices.model, dict[str, ClientModel]()
        with_pooled = cases is not None and evaluation.compare
        pooled = bench.centralised(model) if with_pooled else None

        def states() -> Any:
            for client in range(len(bench.people)):
                self.notify("step", {"text": "training what clients serve", "done": client, "total": len(bench.people)})
                together, own = bench.restricted(model, state, client), bench.alone(model, client)
                name = bench.people.names[client]
                mix = model.personalise(together, own, choices.mixes.get(name, _DEFAULT_MIX).weight)
                kept[name] = ClientModel(bench.items_of(client), mix)
                central = None if pooled is None else bench.restricted(model, pooled, client)
                yield client, ClientStates(kept[name].items, together, own, mix, central)

        if not bench.silos:
            if cases is None:
                return None, kept
            everything = ClientStates(bench.items_of(0), state, centralised=pooled)
            return compare_devices(model, bench, cases, everything, evaluation), kept
        if cases is None:
            for _ in states():
                pass
            return None, kept
        return compare_silos(model, bench, cases, states(), evaluation), kept

    def result(
        self, run: Run, choices: Choices, bench: Bench, comparison: Comparison | None, cleaning: Any, timing: dict[str, float]
    ) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        settings, people, plan = self.settings, bench.people, self.plan
        measured = summarise(comparison, settings.evaluation, settings.run.seed, bench.silos) if comparison else {"metrics": {}}
        for row in measured.get("per_client", []):
            if row["client"] in choices.mixes or bench.silos:
                row["mix_weight"] = choices.mixes.get(row["client"], _DEFAULT_MIX).weight
        spec = run.model.parts(len(bench.fit.catalogue))
        return finite({
            "run": None if self.folder is None else str(self.folder),
            "model": run.model.name,
            "hyper_parameters": run.model.model_dump(),
            "tuning": choices.trials,
            "engine": "local",
            "seed": settings.run.seed,
            "scope": "simulation",
            "data": {
                "users": int(bench.fit.index.user.is_not_null().sum()),
                "guests": int(bench.fit.index.user.is_null().sum()),
                "items": len(bench.fit.catalogue),
                "interactions": len(people.block.item),
                "baskets": people.block.n_baskets,
                "clients": len(people),
            },
            **measured,
            "split": {"method": self.prepared.split.method, "note": self.prepared.split.note},
            "cleaning": cleaning,
            "caveats": _caveats(settings, bench, measured.get("comparison")),
            "privacy": {
                "unit": "user", "epsilon": plan.epsilon, "delta": None, "noise": plan.noise,
                "aggregation": plan.aggregation, "accountant": None, "neighbours": "add-or-remove-one",
                "rounds": run.state.round, "clip_norm": plan.clip_norm, "min_clients": plan.min_clients,
                "statement": "no differential privacy: sums are exact and the server sees each client's contribution",
            },
            "traffic": {
                "upload_bytes_per_client": sum(part.size for part in spec) * plan.ring_bits // 8,
                "download_bytes_per_client": state_bytes(run.state),
            },
            "timing": timing,
        })  # fmt: skip

    def _choose_mixes(self, model: Model, bench: Bench, state: State, cases: CaseTable) -> dict[str, MixChoice]:
        chosen = {}
        for client, name in enumerate(bench.people.names if bench.silos else ()):
            self.notify("step", {"text": "choosing each client's mix", "done": client, "total": len(bench.people)})
            own = cases.of_client(name, bench.items_of(client))
            if len(own):
                together, alone = bench.restricted(model, state, client), bench.alone(model, client)
                chosen[name] = choose_mix(model, together, alone, own, METRIC, self._k())
        return chosen

    def _k(self) -> int:
        return int(headline(self.settings.evaluation.at).rpartition("@")[2])


_DEFAULT_MIX = MixChoice(DEFAULT_WEIGHT, "default: no validation")


def table_of(held: HeldOut, bench: Bench) -> CaseTable:
    """Held-out cases as positions, each with its client (the only one, where the log has no clients)."""
    if "client" in held.cases.columns:
        clients = held.cases["client"]
    else:
        clients = pl.Series("client", [bench.people.names[0]] * len(held.cases), dtype=pl.String)
    return tabulate(held.cases, bench.fit.catalogue, bench.fit, clients)


def _new_folder(settings: Settings) -> Path:
    """A run folder that does not exist yet."""
    if settings.run.output is not None:
        folder = Path(settings.run.output)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            hint = f"; continue it with --resume {folder}" if (folder / "config.toml").exists() else ""
            raise ConfigError(f"--output {folder}: exists and is not empty{hint}, or choose another folder")
        return folder
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / f"{stamp}-{settings.model.get('name', 'cart')}"
    folder, n = base, 1
    while folder.exists():
        folder, n = base.with_name(f"{base.name}-{n}"), n + 1
    return folder


def _write_request(folder: Path, settings: Settings, accept_proposal: bool) -> None:
    """`config.toml`, complete, and the digests of the input files, so that a resumed run is the same run."""
    content = settings.model_dump(exclude_none=True)
    write_text(folder / "config.toml", tomli_w.dumps(content))
    inputs = [*settings.data.logs, settings.data.items, settings.split.test, settings.split.valid, settings.split.candidates]
    digests = {path: sha256_of(Path(path)) for path in inputs if path is not None}
    write_text(folder / "inputs.json", json.dumps({"accept_proposal": accept_proposal, "sha256": digests}, indent=2))


def _resumed(folder: Path, asked: Settings) -> tuple[Settings, bool]:
    if (folder / "manifest.json").exists():
        raise RunError(f"{folder}: this run is finished; there is nothing to resume")
    if not (folder / "config.toml").exists():
        raise RunError(f"{folder}: not an interrupted run (it has no config.toml)")
    settings = build_settings(read_toml(folder / "config.toml"), str(folder / "config.toml"))
    request = json.loads(read_bytes(folder / "inputs.json"))
    for path, digest in request["sha256"].items():
        if sha256_of(Path(path)) != digest:
            raise RunError(f"{path}: changed since {folder} was started; start a new run")
    return settings, bool(request["accept_proposal"])


def _choices_dict(choices: Choices) -> dict[str, Any]:
    return {
        "model": {"name": choices.model.name, **choices.model.model_dump()},
        "mixes": {name: [mix.weight, mix.reason] for name, mix in choices.mixes.items()},
        "trials": choices.trials,
    }


def _read_choices(path: Path) -> Choices:
    kept = json.loads(read_bytes(path))
    mixes = {name: MixChoice(weight, reason) for name, (weight, reason) in kept["mixes"].items()}
    return Choices(build(kept["model"]), mixes, kept["trials"])


def _caveats(settings: Settings, bench: Bench, comparison: Any) -> list[str]:
    found = ["Raw metrics of a simulation: one process held all logs, and the metrics are outside any epsilon."]
    if comparison is not None and (len(settings.data.logs) < 2 or settings.clients.shops):
        found.append(
            "The clients are parts of one log: gains measured on one retailer's data say little about other retailers."
        )
    if not bench.silos and len(bench.people) > 1:
        found.append("Nobody is compared with training alone: one person's log cannot rank what that person never touched.")
    return found
