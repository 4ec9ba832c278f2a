"""A node's desk: what an organisation does with its own log when it takes part in a job.

    desk = Desk(config)                      config: the node's own columns, ids, cleaning and held-out part
    desk.own_users, desk.assortment(private=...)
    work = desk.open(facts, alignment)       one job, on the agreed catalogue
    work.coverage                            share of own rows, users and items that take part
    work.contribute(summand, spec, state, store) -> Accumulator
    work.evaluate(model, state, folder) -> NodeResult
    work.metrics_input(model, state) -> MetricsInput

Nothing here talks to anybody: what leaves is decided, noised, masked and written down elsewhere.
"""

from __future__ import annotations

from coterie.data.catalogue import Catalogue
from coterie.data.log import InteractionLog
from coterie.experiment.deskfacts import JobFacts
from coterie.experiment.desklog import DeskConfig, DeskLog, Inputs
from coterie.experiment.deskmetrics import MetricsInput, as_gain, comparison_names, metric_names
from coterie.experiment.deskresult import NodeResult
from coterie.experiment.desksums import Sums
from coterie.experiment.deskwork import Work
from coterie.experiment.fitting import Notify, silent
from coterie.federation.alignment import Alignment
from coterie.federation.assortment import Assortment
from coterie.privacy.plan import Plan

__all__ = [
    "Desk",
    "DeskConfig",
    "JobFacts",
    "MetricsInput",
    "NodeResult",
    "Work",
    "as_gain",
    "comparison_names",
    "metric_names",
]


class Desk:
    """What one organisation's log is to the jobs that it takes part in.

    The log is read when it is needed, and again once its files have changed; rows of a database are read again for each
    job. `notify` is told what goes on.
    """

    def __init__(self, config: DeskConfig, notify: Notify = silent) -> None:
        self.config, self.notify = config, notify
        self._log = DeskLog(config)
        self._sums = Sums(config.engine, config.ray_address, notify)
        self._counted: tuple[Inputs, int] | None = None

    @property
    def own_users(self) -> int:
        """How many users the training part of the log has; guests are nobody's users.

        Raises:
            DataError: the log cannot be used.
            ConfigError: no log is named, or a setting does not go with it.
        """
        log, inputs = self._training_part()
        if self._counted is None or self._counted[0] is not inputs:
            self._counted = inputs, log.frame["user"].drop_nulls().n_unique()
        return self._counted[1]

    def assortment(self, *, private: bool) -> Assortment:
        """What the organisation carries: the items of the training part of its log, with what its items file says of
        them; with `private` the items file alone, whatever was sold.

        Raises:
            PlanError: `private`, and the configuration names no items file.
            DataError: the log or the file cannot be used.
        """
        if private:
            return Assortment.listed(self._log.listed(), self.config.identifier, self.config.shared_attributes)
        return Assortment.of(Catalogue.of(self._training_part()[0]))

    def open(self, facts: JobFacts, alignment: Alignment | None = None) -> Work:
        """Take up a job: clean and divide the log as its plan demands, on the agreed catalogue.

        Without `alignment` the agreed items are own ids as they stand.

        Raises:
            DataError: the log cannot be used for this job, or none of its items was agreed.
            PlanError: more users than the plan's public bound.
            ConfigError: an unknown model, cleaning that the plan does not allow, or ratings that the log does not have.
            ModelError: more items than the model can take.
        """
        self.notify("step", {"text": "cleaning and splitting", "done": 0, "total": None})
        return Work(self._log, facts, alignment, self._sums, self.notify)

    def close(self) -> None:
        """Let go of the log in memory and, where one was opened, of the Ray cluster; both come back when needed."""
        self._sums.close()
        self._log.forget()

    def _training_part(self) -> tuple[InteractionLog, Inputs]:
        """What is not held out for the test, cleaned, where no plan demands more; and what was read."""
        prepared, inputs = self._log.prepared(Plan())
        return prepared.cleaned(with_validation=True)[0], inputs
