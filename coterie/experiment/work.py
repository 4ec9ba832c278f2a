"""The steps of one training; everything that lasts is in the run folder, so that a second process can go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from coterie.data.catalogue import Catalogue
from coterie.data.splits import HeldOut
from coterie.engines.local import IN_TURN
from coterie.engines.spans import Workers
from coterie.errors import ConfigError, DataError, ModelError
from coterie.evaluation.metrics import evaluate
from coterie.experiment.cases import CaseTable, FitData, tabulate
from coterie.experiment.charged import CHOICE, COUNTS, WHAT, Charged, charge_metrics, charged_choice, paid_plans
from coterie.experiment.compare import (
    METRIC,
    ClientStates,
    Comparison,
    compare_devices,
    compare_silos,
    headline,
)
from coterie.experiment.estimate import check_size, estimate, memory_of_machine
from coterie.experiment.fitting import Bench, Notify, choose_mix, public_of, scorer, tune
from coterie.experiment.outputs import ROUNDS_FILE, round_record, round_records
from coterie.experiment.prepare import Prepared
from coterie.experiment.private import (
    assortment_of,
    cases_that_count,
    is_sealed,
)
from coterie.experiment.request import (
    read_json,
)
from coterie.experiment.result import Choices
from coterie.experiment.run import ClientModel, StoredClients
from coterie.experiment.signing import CHECKPOINTS
from coterie.experiment.watch import Watch
from coterie.federation.checkpoint import Checkpoints
from coterie.federation.localstore import UserStore
from coterie.federation.loop import AfterRound
from coterie.federation.mix import MixChoice
from coterie.federation.release import Exit
from coterie.files import append_line, write_text
from coterie.models.base import Model
from coterie.models.registry import build
from coterie.privacy.plan import BoundRound, Plan
from coterie.ring import Accumulator
from coterie.settings import Settings
from coterie.types import Array, Population, State, Total

NO_VALIDATION = "on validation, but nothing usable is held out for it; set --valid-share or --valid"


class Work:
    """The steps of one training; everything that lasts is in the run folder, so that a second process can go on."""

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        prepared: Prepared,
        folder: Path | None,
        notify: Notify,
        workers: Workers = IN_TURN,
    ) -> None:
        self.settings, self.plan, self.prepared, self.folder, self.notify = settings, plan, prepared, folder, notify
        self.workers = workers
        self.checkpoints = Checkpoints((folder or Path()) / CHECKPOINTS)
        self.exit = Exit()
        self.rounds: dict[str, list[dict[str, Any]]] = {}
        self.trajectory: list[tuple[Population, BoundRound, State]] = []

    def bench(self, model: Model, *, with_validation: bool, catalogue: Catalogue | None = None) -> tuple[Bench, Any]:
        log, report = self.prepared.fit_log(with_validation=with_validation)
        run, wanted = self.settings.run, self.settings.evaluation.catalogue
        catalogue = catalogue or assortment_of(log, self.settings, self.plan)
        fit = FitData.of(log, self.settings.augment, run.seed, catalogue)
        check_size(model, len(fit.catalogue))
        silos = len(fit.population) > 1 and not fit.population.one_user_each
        own = wanted == "own" or (wanted == "auto" and silos)
        plan = (
            self.plan.slice(1 - self.settings.evaluation.metrics_share)
            if is_sealed(self.settings, self.plan)
            else self.plan
        )
        bench = Bench(fit, plan, run.threads, run.block, run.seed, own and silos, notify=self.notify, exit=self.exit)
        return replace(bench, public=public_of(model, fit), workers=self.workers), report

    def train(self, stage: str, model: Model, bench: Bench, watch: Watch | None = None) -> State:
        """Train over all clients, from the last checkpoint of the stage; `watch` looks on with validation cases."""
        store, start = UserStore(bench.taught.block.n_users), None
        self.rounds[stage] = []
        if self.folder is not None and (start := self.checkpoints.load(stage)) is not None:
            store.restore(self.checkpoints.load_local(stage, start))
            before = (r for r in round_records(self.folder) if r["stage"] == stage and r["round"] < start.round)
            self.rounds[stage] = sorted(before, key=lambda record: record["round"])
            if watch is not None and watch.resumed(self.rounds[stage]):
                return start
        self.trajectory = []
        start = start or bench.start(model)
        return bench.federated(model, start, self._after_round(stage, model, bench, watch, store, start), store, stage)

    def at_home(self, model: Model, bench: Bench) -> Bench | None:
        """Under a plan with noise: the rows without those that something is chosen with; None where nothing is.

        A choice that an organisation makes at home and keeps costs nothing, and one of all together is paid for.
        Nothing is trained twice: that would be a second charge.
        """
        held = self.prepared.split.valid
        mixes = bench.silos and self.settings.evaluation.compare
        if not self.plan.private or not (mixes or self.settings.model.get("tune")):
            return None
        if held is None or not len(held.cases):
            if self.settings.model.get("tune"):
                raise ConfigError(f"tune = true chooses {NO_VALIDATION}")
            return None
        return self.bench(model, with_validation=False, catalogue=bench.fit.catalogue)[0]

    def kept_apart(self, model: Model, bench: Bench) -> Bench | None:
        """Those rows, where the federation must not sum the others: a choice needs rows that it has not seen.

        An organisation that chooses for itself can take what it sent out of the sums again, where the model keeps them.
        """
        if model.keeps_sums and not self.settings.model.get("tune"):
            return None
        return self.at_home(model, bench)

    def chosen_apart(self, choices: Choices, apart: Bench, state: State) -> tuple[Choices, State]:
        """Hyper-parameters by charged metrics, then each organisation's weight of its own model, at home.

        `apart` holds the rows without those of validation. Where the federation has summed these too, each organisation
        judges by the sums without its own; where it cannot tell these (the training was resumed), nothing is chosen.
        """
        held, model = self.prepared.split.valid, choices.model
        if held is None:
            return choices, state
        cases, trials = self.table_of(held, apart), list[dict[str, Any]]()
        if self.settings.model.get("tune"):
            plan = self._pays(CHOICE)
            model, state, trials = charged_choice(model, apart, plan, state, cases, self._k())
            return Choices(model, self._choose_mixes(model, apart, state, cases), trials), state
        if not model.keeps_sums:
            return Choices(model, self._choose_mixes(model, apart, state, cases), trials), state
        if len(self.trajectory) < state.round:
            return choices, state
        mixes = self._choose_mixes(model, apart, state, cases, lambda name: model.less(state, self._sent(model, name)))
        return replace(choices, mixes=mixes), state

    def _sent(self, model: Model, name: str) -> dict[str, Array]:
        """What one client sent in the last training, without noise and masks: by part, in ring units."""
        sent = dict[str, Array]()
        for people, bound, before in self.trajectory:
            out = Accumulator(bound.spec)
            if name in people.names:
                model.contribute(bound.spec, before, people.client(people.names.index(name)), None, out)
            sent |= out.parts
        return sent

    def choose(self, model: Model) -> Choices:
        """Selection: fit on the training part alone, decide on validation; decisions survive a restart."""
        wants_tuning, held = bool(self.settings.model.get("tune", False)), self.prepared.split.valid
        patience = self.settings.run.patience
        wanted = "tune = true chooses" if wants_tuning else "patience (early stopping) decides" if patience else None
        if self.plan.private:
            return Choices(model, {}, [])
        if held is None or not len(held.cases):
            if wanted:
                raise ConfigError(f"{wanted} {NO_VALIDATION}")
            return Choices(model, {}, [])
        kept = None if self.folder is None else self.folder / CHECKPOINTS / "choices.json"
        if kept is not None and kept.exists():
            return _read_choices(kept)
        bench, _ = self.bench(model, with_validation=False)
        cases = self.table_of(held, bench)
        if wanted and not len(cases.all()):
            raise ConfigError(f"{wanted} {NO_VALIDATION}")
        model, trials = tune(model, bench, cases, METRIC, self._k()) if wants_tuning else (model, [])
        watch = Watch(cases.all(), f"{METRIC}@{self._k()}", patience)
        state = self.train("selection", model, bench, watch)
        if len(trials) > 1 and model.grid:
            chosen = ", ".join(f"{key} = {getattr(model, key)}" for key in model.grid)
            self.notify("note", {"text": f"chosen on validation among {len(trials)} fits: {chosen}"})
        rounds = watch.best_round if patience else None
        if rounds is not None and rounds < state.round:
            self.notify("note", {"text": f"stopped early: round {rounds} of {state.round} was best on validation"})
            if bench.silos and self.settings.evaluation.compare:  # mixes are chosen for the model that is served
                state = replace(bench, rounds=rounds).federated(model)
        mixes = self._choose_mixes(model, replace(bench, rounds=rounds), state, cases)
        choices = Choices(model, mixes, trials, rounds)
        if kept is not None:
            write_text(kept, json.dumps(choices_dict(choices)))
        return choices

    def test_cases(self, bench: Bench) -> CaseTable | None:
        """The cases of the test, where there is one.

        Raises:
            DataError: no held-out item is in the training catalogue.
        """
        held = self.prepared.split.test
        if held is None:
            return None
        table = self.table_of(held, bench)
        if not len(table.all()):
            raise DataError(
                "no held-out item is in the training catalogue; are training and test of the same kind of ids?"
            )
        return table

    def announce(self, model: Model, bench: Bench) -> None:
        """Say what the training will need before it starts."""
        compare = self.settings.evaluation.compare and self.prepared.split.test is not None
        sizes = [len(bench.items_of(c)) for c in range(len(bench.people))] if bench.silos and compare else []
        trainings = 1 + int(compare) + int(self.prepared.split.valid is not None)
        held = {"test": self.prepared.split.test, "valid": self.prepared.split.valid}
        cases = {name: 0 if part is None else len(part.cases) for name, part in held.items()}
        spec = model.heaviest_round(bench.start(model))
        if spec is None:
            raise ModelError(f"model '{model.name}' wants no round at all; it has nothing to learn from")
        bound = bench.plan.bind(
            spec,
            bench.people.block.n_users,
            len(bench.people),
            shares=model.budget(bench.start(model)),
            one_user_each=bench.people.one_user_each,
        )
        need = estimate(model, bench.fit.training, bound, sizes, trainings, cases)
        sentence = f"{len(bench.people):,} clients, {len(bench.fit.catalogue):,} items: {need.sentence()}"
        self.notify("estimate", {**asdict(need), "sentence": sentence})
        if (advice := model.advice(len(bench.fit.catalogue))) is not None:
            self.notify("warning", {"text": advice})
        machine = memory_of_machine()
        if machine is not None and need.memory_bytes > 0.8 * machine:
            self.notify("warning", {"text": f"this needs most of the machine's memory ({machine / 1e9:.0f} GB)"})

    def _after_round(
        self, stage: str, model: Model, bench: Bench, watch: Watch | None, store: UserStore, start: State
    ) -> AfterRound:
        """Checkpoint and log each round; where somebody watches, measure on validation and ask whether to stop."""
        last = start

        def keep(bound: BoundRound, total: Total, state: State) -> bool:
            nonlocal last
            if model.keeps_sums:
                self.trajectory.append((bench.taught, bound, last))
            last = state
            measured, enough = None, False
            if watch is not None:
                at, n_items = self.settings.evaluation.at, len(bench.fit.catalogue)
                rates = model.predicts_values(state)
                found = evaluate(scorer(model, state), watch.cases, at, n_items, predicts_values=rates)
                measured = found.means()
                enough = watch.seen(state.round, measured)
            record = round_record(stage, bound, total, measured)
            self.rounds[stage].append(record)
            if self.folder is not None:
                append_line(self.folder / ROUNDS_FILE, json.dumps(record))
                self.checkpoints.save(stage, state, store.arrays())
            return enough

        return keep

    def compare(
        self, choices: Choices, bench: Bench, state: State, cases: CaseTable | None
    ) -> tuple[Comparison | Charged | None, Mapping[str, ClientModel]]:
        """Train what is compared, measure it on the test, and keep what each client will serve."""
        evaluation, paid = self.settings.evaluation, is_sealed(self.settings, self.plan)
        raw = cases is not None and not paid
        pooled = bench.centralised(choices.model) if raw and evaluation.compare else None
        if cases is None and not (bench.silos and evaluation.compare):
            return None, {}
        if cases is not None and paid:
            return self._charged(choices.model, bench, state, cases), {}
        if not bench.silos and cases is not None:
            everything = ClientStates(bench.items_of(0), state, centralised=pooled)
            return compare_devices(choices.model, bench, cases, everything, evaluation), {}
        kept = self._kept(bench)
        states = self._client_states(choices, bench, state, pooled, kept)
        if cases is not None:
            return compare_silos(choices.model, bench, cases, states, evaluation), kept
        for _ in states:
            pass  # nothing is measured, but every client keeps what it will serve
        return None, kept

    def _charged(self, model: Model, bench: Bench, state: State, cases: CaseTable) -> Charged:
        """Metrics of the federation's model on the whole catalogue, released as one noised sum over users.

        Of nothing else: what a client makes of its own rows without noise (its model, its mix, its list of items)
        depends on all of its users, so that one of them would move what every other one adds.
        """
        return charge_metrics(model, bench, self._pays(WHAT), state, cases, self.settings.evaluation)

    def set_aside(self, cases: CaseTable | None) -> None:
        """Reserve what will be paid for beside the model, before any of it is trained."""
        if not is_sealed(self.settings, self.plan):
            return
        plans = dict(zip((WHAT, COUNTS), paid_plans(self._pays(WHAT)), strict=True)) if cases is not None else {}
        if self.settings.model.get("tune"):
            plans[CHOICE] = self._pays(CHOICE)
        for what, plan in plans.items():
            self.exit.prepare(what, dict(enumerate(plan.events((1.0,)))))

    def _pays(self, what: str) -> Plan:
        """The part of the plan that pays for metrics; a choice by them takes half."""
        share = self.settings.evaluation.metrics_share
        return self.plan.slice(share / 2 if what == CHOICE or self.settings.model.get("tune") else share)

    def _client_states(
        self, choices: Choices, bench: Bench, state: State, pooled: State | None, kept: Any
    ) -> Iterator[tuple[int, ClientStates]]:
        """One client after the other: what it could serve. Its mix is put into `kept`."""
        model = choices.model
        for client, name in enumerate(bench.people.names):
            self.notify("step", {"text": "training what clients serve", "done": client, "total": len(bench.people)})
            items, together = bench.items_of(client), bench.restricted(model, state, client)
            if not self.settings.evaluation.compare:
                yield client, ClientStates(items, together)
                continue
            own = bench.alone(model, client)
            mix = model.personalise(together, own, choices.mix_weight(name))
            if isinstance(kept, StoredClients):
                kept.write(name, ClientModel(items, mix))
            else:
                kept[name] = ClientModel(items, mix)
            central = None if pooled is None else bench.restricted(model, pooled, client)
            yield client, ClientStates(items, together, own, mix, central)

    def _kept(self, bench: Bench) -> Any:
        """Where clients' models go: straight to the run folder, so that memory holds one at a time, or a dict."""
        if self.folder is None or not self.settings.evaluation.compare or is_sealed(self.settings, self.plan):
            return {}
        return StoredClients(self.folder, bench.people.names)

    def _choose_mixes(
        self,
        model: Model,
        bench: Bench,
        state: State,
        cases: CaseTable,
        without: Callable[[str], State] | None = None,
    ) -> dict[str, MixChoice]:
        """Each organisation's weight of its own model; `without` gives the state that lacks what it sent itself."""
        chosen = {}
        compared = bench.silos and self.settings.evaluation.compare
        for client, name in enumerate(bench.people.names if compared else ()):
            self.notify("step", {"text": "choosing each client's mix", "done": client, "total": len(bench.people)})
            own = cases.of_client(name, bench.items_of(client))
            if len(own):
                others = state if without is None else without(name)
                together, alone = bench.restricted(model, others, client), bench.alone(model, client)
                chosen[name] = choose_mix(model, together, alone, own, METRIC, self._k())
        return chosen

    def table_of(self, held: HeldOut, bench: Bench) -> CaseTable:
        """Held-out cases as positions, each with its client; past baskets only where the settings let them enter."""
        cases = cases_that_count(held.cases, self.plan) if is_sealed(self.settings, self.plan) else held.cases
        table = tabulate(cases, bench.fit.catalogue, bench.fit, cases["client"])
        if self.settings.clean.normalise_values != "none":  # what is predicted then is not what was held out
            table = replace(table, cases=replace(table.cases, target_value=None))
        if self.settings.evaluation.history:
            return table
        return replace(table, cases=replace(table.cases, query=table.cases.query.without_history()))

    def _k(self) -> int:
        return int(headline(self.settings.evaluation.at).rpartition("@")[2])


def choices_dict(choices: Choices) -> dict[str, Any]:
    """Choices as JSON, for a second process."""
    return {
        "model": {"name": choices.model.name, **choices.model.model_dump()},
        "mixes": {name: [mix.weight, mix.reason] for name, mix in choices.mixes.items()},
        "trials": choices.trials,
        "rounds": choices.rounds,
    }


def _read_choices(path: Path) -> Choices:
    kept = read_json(path)
    mixes = {name: MixChoice(weight, reason) for name, (weight, reason) in kept["mixes"].items()}
    return Choices(build(kept["model"]), mixes, kept["trials"], kept["rounds"])
