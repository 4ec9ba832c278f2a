"""One job at a node's desk: what it contributes, and what it learns for itself.

What is contributed are the rows that are not held out for the test. Rows of validation, by which the weight of the own
model in the mix is chosen at home, are contributed too where the model keeps its sums: the organisation then judges by
the sums without its own. Of other models the federation must not have seen them by then, so they stay at home.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from coterie.data.log import InteractionLog
from coterie.data.splits import HeldOut
from coterie.engines.local import IN_TURN, kernel_threads
from coterie.engines.spans import BLOCK, KeptStore, contribution
from coterie.errors import ConfigError, DataError, PlanError
from coterie.evaluation.metrics import Measured
from coterie.experiment.cases import CaseTable, FitData, tabulate
from coterie.experiment.compare import CART_ONLY, ClientStates, headline, measure_schemes, paired_gain
from coterie.experiment.deskfacts import JobFacts
from coterie.experiment.deskfolder import Learned, write_kept
from coterie.experiment.desklog import DeskLog
from coterie.experiment.deskmetrics import MetricsInput, metric_names
from coterie.experiment.deskresult import NodeResult, node_result
from coterie.experiment.deskrows import Rows
from coterie.experiment.deskserved import Scheme, chosen_mix, schemes
from coterie.experiment.desksums import Sums
from coterie.experiment.estimate import check_size
from coterie.experiment.fitting import Notify
from coterie.experiment.private import fingerprint_of, rows_that_count
from coterie.federation.alignment import Alignment
from coterie.federation.checkpoint import state_digest
from coterie.federation.mix import DEFAULT_WEIGHT, MixChoice
from coterie.models.base import Model
from coterie.ring import Accumulator
from coterie.settings import EvaluationSettings
from coterie.types import Array, RoundSpec, State, Summand


class Work:
    """One job at a node's desk; see `coterie.experiment.desk.Desk.open`."""

    coverage: Mapping[str, float]
    """Shares of the node's training ``rows``, of their ``users`` and of their ``items`` that take part: 0 to 1."""

    def __init__(
        self, source: DeskLog, facts: JobFacts, alignment: Alignment | None, sums: Sums, notify: Notify
    ) -> None:
        model = facts.build()
        check_size(model, len(facts.items))
        self.facts, self._source, self._sums = facts, source, sums
        self._prepared, self._inputs = source.prepared(facts.plan, anew=True)
        log, self._report = self._prepared.cleaned(with_validation=True)
        _refuse_other_values(facts, model, log)
        self._rows = Rows(log, facts, alignment, source.settings.augment, notify)
        self.coverage = self._rows.coverage()
        self._protected = self._counting(self._rows)
        self._apart = self._rows_apart()
        self._summed = self._protected
        if self._apart is not None and not model.keeps_sums:
            self._summed = self._counting(self._apart)
        self._rounds: dict[int, tuple[RoundSpec, State]] = {}
        self._learned: tuple[bytes, _Learned] | None = None
        _refuse_unusable(self._summed, facts)

    @property
    def users(self) -> int:
        """Units whose rows are contributed: users and guests' baskets; under a plan with noise as the plan says."""
        return self._summed.users.n_users

    @cached_property
    def digest(self) -> str:
        """Of the rows that are contributed, keyed with this installation's key: after a restart another one means that
        the log has changed, and what stays at its users does not fit them any more.
        """
        return fingerprint_of(self._summed.log)

    def contribute(self, summand: Summand, spec: RoundSpec, state: State, store: KeptStore | None) -> Accumulator:
        """The sum over own users, clipped and quantised; no noise, no masks. What `store` is given is not committed.

        `spec` has the plan's final bounds (`coterie.privacy.plan.BoundRound.spec`). Of a model that keeps its sums the
        desk remembers the round (`remember`).

        Raises:
            DataError: `store` is of other users than the log has now.
        """
        if isinstance(summand, Model) and summand.keeps_sums:
            self.remember(spec, state)
        self._refuse_other_users(store)
        return self._sums(summand, spec, state, self._summed.users, store)

    def remember(self, spec: RoundSpec, state: State) -> None:
        """Note a round that this node took part in, as before a restart: `spec` as in `contribute`, and the state then.

        Without it a model that keeps its sums cannot be judged without the node's own, and the mix takes its default.
        """
        self._rounds[spec.index] = (spec, state)

    def evaluate(
        self,
        model: Model,
        state: State,
        folder: Path | None,
        *,
        in_sum: bool = True,
        facts: Mapping[str, Any] | None = None,
    ) -> NodeResult:
        """Measure the model at home against what the organisation could do alone, and keep the better in `folder`.

        Args:
            model, state: what the federation trained.
            folder: where the run folder of what is kept goes (None: nowhere); one of an earlier try is replaced.
            in_sum: whether the sums of the training hold what this node sent.
            facts: what the run's result states of the job besides, such as ``privacy``, ``traffic`` and ``timing``.

        Raises:
            ConfigError: `folder` holds something else than a run.
            EnvironmentFault: it cannot be written.
        """
        with kernel_threads(0):
            learned = self._learn(model, state, in_sum=in_sum)
            metric, evaluation = headline(self.facts.evaluate_at), EvaluationSettings(at=self.facts.evaluate_at)
            gain = paired_gain(learned.measured, metric, evaluation, self.facts.seed)
            result = node_result(learned.measured, gain, metric, learned.choice, self.coverage, folder)
        if folder is not None:
            stated = Learned(
                self._source.name,
                self.facts,
                self._rows,
                self._prepared.split,
                self._report,
                learned.measured,
                learned.unreachable,
                gain,
                result,
            )
            kept = learned.schemes[result.kept]
            write_kept(folder, kept, stated, self._source.settings, self._inputs, facts or {})
        return result

    def metrics_input(self, model: Model, state: State, *, in_sum: bool = True) -> MetricsInput:
        """This node's part of the sum over users of `coterie.experiment.deskmetrics.metric_names`."""
        private = self.facts.plan.private
        with kernel_threads(0):
            measured = self._released(model, state) if private else self._learn(model, state, in_sum=in_sum).measured
        return MetricsInput.of_users(metric_names(self.facts.evaluate_at, private=private), measured)

    # --- at home ------------------------------------------------------------------------------------------------------

    def _learn(self, model: Model, state: State, *, in_sum: bool) -> _Learned:
        """What could be served, and what each of it came to on the test; done once for one state."""
        key = state_digest(state) + bytes([in_sum])
        if self._learned is None or self._learned[0] != key:
            choice = self._choice(model, state, in_sum=in_sum)
            found = schemes(model, state, self._rows, choice.weight)
            self._learned = (key, _Learned(choice, found, *self._tested(found)))
        return self._learned[1]

    def _tested(self, found: Mapping[str, Scheme]) -> tuple[Mapping[str, Measured], int]:
        """Every scheme on the held-out questions over the own catalogue, and how many items nobody could have found."""
        held = self._prepared.split.test
        if held is None:
            return {}, 0
        cases = self._table(held, self._rows).all()
        if not len(cases):
            return {}, cases.unreachable
        whole = self._rows.whole
        popularity = np.bincount(whole.population.block.item, minlength=len(whole.catalogue)).astype(np.float64)
        measured = {name: one.measure(cases, self.facts.evaluate_at, popularity) for name, one in found.items()}
        return measured, cases.unreachable

    def _choice(self, model: Model, state: State, *, in_sum: bool) -> MixChoice:
        """The weight of the own model in the mix, by rows that the federation has not seen, or without those it has."""
        held, others = self._prepared.split.valid, state
        if self._apart is None or held is None:
            return MixChoice(DEFAULT_WEIGHT, "default: nothing was held out to choose it by")
        if model.keeps_sums and in_sum:
            self._recall(model)
            if len(self._rounds) < state.round:
                return MixChoice(DEFAULT_WEIGHT, "default: what this node sent is not known after a restart")
            others = model.less(state, self._sent(model))
        cases = self._table(held, self._apart).all()
        return chosen_mix(model, others, self._apart, cases, int(headline(self.facts.evaluate_at).rpartition("@")[2]))

    def _recall(self, model: Model) -> None:
        """Of a model of one round, which begins with what all compute, the round is known also after a restart."""
        if model.one_sum and not self._rounds and self.facts.members:
            start = self.facts.opening()
            if (bound := self.facts.bound(start)) is not None:
                self.remember(bound.spec, start)

    def _sent(self, model: Model) -> dict[str, Array]:
        """What this node sent, computed once more: by part, in ring units, without noise and masks."""
        sent = dict[str, Array]()
        for _, (spec, state) in sorted(self._rounds.items()):
            sent |= contribution(IN_TURN, model, spec, state, self._summed.users, None, BLOCK).parts
        return sent

    def _released(self, model: Model, state: State) -> Mapping[str, Measured]:
        """What was released, on the agreed catalogue: what a user's questions come to depends on its own rows alone."""
        held = self._prepared.split.test
        if held is None:
            return {}
        frame = held.cases
        if self.facts.plan.guests == "drop":
            frame = frame.filter(frame["user"].is_not_null())
        frame = self._protected.translated_lists(frame, ("cart", "targets", "candidates"))
        asked = self._askable(tabulate(frame, self.facts.catalogue, self._protected.agreed, frame["client"])).all()
        if not len(asked):
            return {}
        available = ClientStates(np.arange(len(self.facts.items), dtype=np.int32), state)
        found = measure_schemes(model, available, asked, EvaluationSettings(at=self.facts.evaluate_at))
        found.pop(CART_ONLY, None)  # not every node has it
        return found

    def _table(self, held: HeldOut, rows: Rows) -> CaseTable:
        """Held-out questions over the own catalogue of `rows`."""
        fit: FitData = rows.whole
        return self._askable(tabulate(held.cases, fit.catalogue, fit, held.cases["client"]))

    def _askable(self, table: CaseTable) -> CaseTable:
        if self._source.settings.clean.normalise_values == "none":
            return table
        return replace(
            table, cases=replace(table.cases, target_value=None)
        )  # what is predicted is not what was held out

    # --- the rows -----------------------------------------------------------------------------------------------------

    def _counting(self, rows: Rows) -> Rows:
        """Those of units that the plan protects; without a plan with noise the same object."""
        log = rows_that_count(rows.log, self.facts.plan)
        return rows if len(log) == len(rows.log) else replace(rows, log=log)

    def _rows_apart(self) -> Rows | None:
        """The rows without those of validation; None where nothing can be validated."""
        held = self._prepared.split.valid
        if held is None or not len(held.cases):
            return None
        log, _ = self._prepared.cleaned(with_validation=False)
        apart = replace(self._rows, log=log)
        return apart if apart.coverage()["rows"] else None

    def _refuse_other_users(self, store: KeptStore | None) -> None:
        for name, array in ({} if store is None else store.arrays()).items():
            if len(array) != self.users:
                raise DataError(
                    f"{self._source.name}: what stays at users ('{name}') is of {len(array):,} of them, and the log "
                    f"has {self.users:,} now; bring back the log as it was when the job began, or start the job again"
                )


@dataclass(frozen=True)
class _Learned:
    choice: MixChoice
    schemes: Mapping[str, Scheme]
    measured: Mapping[str, Measured]
    unreachable: int


def _refuse_other_values(facts: JobFacts, model: Model, log: InteractionLog) -> None:
    """Refuse a log without the values that the job learns."""
    if facts.explicit and model.uses_values and (log.has("basket") or not log.has("value")):
        lacks = "the values beside its baskets are quantities" if log.has("basket") else "this log has no values"
        raise ConfigError(
            f"the job learns ratings, and {lacks}; name their column (value_column in [data]), or ask for a job "
            "without ratings"
        )


def _refuse_unusable(summed: Rows, facts: JobFacts) -> None:
    """Refuse rows of which none takes part, and more users than the public bound says.

    What the coordinator may be told of either names no number of this log.
    """
    if not summed.coverage()["rows"]:
        raise DataError(
            f"{summed.log.source}: none of its items is among the {len(facts.items):,} that were agreed; are its ids "
            "of another kind? Items that few nodes carry are left out (min_carriers); hashed catalogues match GTINs"
        )
    if summed.users.n_users > facts.plan.max_users:
        raise PlanError(
            f"there are more users than max_users = {facts.plan.max_users:,}, the public bound that the job states; it "
            "needs a larger one"
        )
