"""The coordinator's side of one job, from the offer to the last member's word.

    offer -> agree on items -> begin -> rounds (checkpointed) -> run folder, signed -> result -> metrics -> end

Everything that lasts is in the job's folder: a coordinator that was killed conducts the same job again, and what is
already there is not done anew. Members are asked; what they refuse, and why, is shown.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coterie.data.catalogue import Catalogue
from coterie.errors import PeerError
from coterie.evaluation.private import PrivateMetrics
from coterie.experiment.deskfacts import JobFacts
from coterie.experiment.deskmetrics import LARGEST_GAIN, as_gain, comparison_names, metric_names
from coterie.experiment.joint import JointFacts, joint_result
from coterie.experiment.joint_books import JointBooks
from coterie.experiment.offering import Offering, words_of
from coterie.experiment.outputs import ROUNDS_FILE, round_record, round_records, write_reports
from coterie.experiment.run import CATALOGUE_FILE, MODEL_FILE, RESULT_FILE, Run
from coterie.experiment.signing import CHECKPOINTS, MANIFEST
from coterie.federation.agreed import Agreed
from coterie.federation.agreement import Agreement
from coterie.federation.carriers import Carriers
from coterie.federation.checkpoint import Checkpoints
from coterie.federation.envelope import Envelope
from coterie.federation.job import Job, grounds
from coterie.federation.loop import run_rounds
from coterie.federation.network import Done, Journal, NetworkEngine, mine
from coterie.federation.release import Exit
from coterie.federation.talk import Content, Talk
from coterie.files import append_line, read_bytes, write_bytes
from coterie.privacy import accountant
from coterie.privacy.plan import BoundRound, Plan
from coterie.types import State, Summand, Total

STAGE = "final"
AGREED, ASKED = "agreed", "asked.jsonl"
SENT = (MODEL_FILE, CATALOGUE_FILE, RESULT_FILE, "privacy-card.md", MANIFEST)
HEADLINE = "ndcg@{}"


@dataclass
class Conductor:
    """Conducts one occurrence of a job.

    `statement` is the signed job as members are shown it, `roster` the signed list of members, `given` the catalogue of
    mode "given". `folder` becomes the run folder.
    """

    job: Job
    statement: Mapping[str, Any]
    occurrence: int
    roster: bytes
    talk: Talk
    journal: Journal
    folder: Path
    given: Catalogue | None = None
    engine: str = "flower"
    sleep: Callable[[float], None] = time.sleep
    _begun: set[str] = field(default_factory=set)
    _has_model: set[str] = field(default_factory=set)
    _agreed: Agreed | None = None
    _alike: bytes = b""  # what members were told alike, by now
    _records: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._offering = Offering(self.job, self.statement, self.occurrence, self.roster, self.talk, self.sleep)

    def conduct(self) -> Run:
        """Do all of it; returns the finished run.

        Raises:
            PeerError: too few members accept, stay or come back; says who, and why.
            CoterieError: the machine failed; conducting the same job again goes on where it stopped.
        """
        started = time.perf_counter()
        progress, job = self.talk.progress, self.job
        progress.begin(self.talk.job, job.kind)
        self._offering.offer()
        agreed = self._agree()
        self._begin(agreed)
        books = JointBooks(self.folder / CHECKPOINTS / ASKED)
        way = Exit(books, events=books.spent())
        facts = self._facts(agreed)
        state = self._train(facts, way)
        trained = time.perf_counter()
        run = self._finished(facts, agreed, state, way, {"train_s": trained - started, "evaluate_s": 0.0})
        self._deliver()
        self._report(run, way)
        self._send_model()  # to those who were away before
        return run

    def end(self, state: str, reason: str = "") -> None:
        """Tell members that the job is over; who does not hear it forgets by itself."""
        self.talk.stopping = lambda: False
        contents: dict[str, Content] = {
            name: ({"state": state, "reason": reason}, {}) for name in self._offering.accepted
        }
        self.talk.progress.phase("ending", contents, 10.0)
        for _ in self.talk.ask("end", contents, 10.0):
            pass
        self.talk.progress.phase(state)

    # --- before the first round -------------------------------------------------------------------------------------

    def _agree(self) -> Agreed:
        """Agree on the items, once: after a restart what was agreed is read back."""
        path = self.folder / CHECKPOINTS / AGREED
        if path.exists():
            self._agreed = Agreed.from_blobs({one.name: read_bytes(one) for one in path.iterdir()})
            return self._agreed
        agreed = self._agreed_upon()
        if not agreed.counted:
            agreed = self._counted(agreed)
        if not len(agreed.items):
            raise PeerError(
                f"{self.talk.job}: no item is carried by {self.job.min_carriers} members (min_carriers), so there is "
                "nothing to learn about together; lower it where the members consent, or agree on other identifiers"
            )
        # Whole or not there: what is written last is what is looked for.
        partial = path.with_name(f"{AGREED}.part")
        for name, blob in agreed.to_blobs().items():
            write_bytes(partial / name, blob)
        partial.replace(path)
        self._agreed = agreed
        return agreed

    def _agreed_upon(self) -> Agreed:
        """Agree among those who have accepted; once more where members were lost on the way and have come back."""
        reason = ""
        for _ in range(self.job.attempts):
            self._wait("agreeing on items")
            lost = dict[str, str]()
            try:
                return self._agree_once(lost)
            except PeerError as error:
                said = [f"{name}: {why}" for name, why in lost.items() if why]
                reason = "; ".join([str(error), *said])
                if len(said) == len(lost):
                    break  # nobody is to come back: it would be the same again
                self.talk.progress.event(f"items are agreed on once more: {reason}")
        raise PeerError(f"{self.talk.job}: {reason}")

    def _agree_once(self, lost: dict[str, str]) -> Agreed:
        """All exchanges of an agreement; who did not answer as it should enters `lost`, with why ("": not at all)."""
        members = {name: self.talk.members[name] for name in sorted(self._offering.accepted)}
        agreement = Agreement(self.job.catalogue, self.job.min_carriers, members, self.given, job=self.talk.job)
        stage = 0
        while (requests := agreement.requests(stage)) is not None:
            self.talk.progress.phase("agreeing on items", requests, self.job.phase_seconds)
            contents: dict[str, Content] = {
                name: ({"stage": stage, "request": header}, blobs) for name, (header, blobs) in requests.items()
            }
            present = set[str]()
            for name, answer in self.talk.ask("agree", contents, self.job.phase_seconds):
                try:
                    if answer.kind != "agree":
                        raise PeerError(f"{name}: {words_of(answer)}")
                    agreement.take(name, answer.header.get("reply") or {}, _bytes(answer))
                    present.add(name)
                except PeerError as error:
                    lost[name] = str(error).removeprefix(f"{name}: ")
                    self.talk.progress.fault(name, lost[name])
            lost |= {name: "" for name in requests if name not in present and name not in lost}
            agreement.close_stage(present)
            stage += 1
        return agreement.result

    def _wait(self, what: str) -> None:
        """Wait until so many of those who have accepted are there as are needed."""
        accepted = self._offering.accepted
        self.talk.wait_for(min(self._offering.needed, len(accepted)), accepted, self.job.patience_seconds, what)

    def _counted(self, agreed: Agreed) -> Agreed:
        """Count who carries each item by a secure sum: the coordinator learns counts alone."""
        self._begin(agreed, final=False)
        plan, carriers = self.job.counting_plan, Carriers()
        start = carriers.start(len(agreed.items))
        engine = self._network("carriers", plan)
        state = run_rounds(carriers, start, engine, plan, what="carriers")
        return agreed.count(state["carriers"], len(engine.done[-1].members))

    def _begin(self, agreed: Agreed, *, final: bool = True) -> None:
        """Send what was agreed; members align their logs with it and set their budget aside."""
        self._begun, self._alike = set(), grounds(self.statement, agreed.digest)
        for _ in range(self.job.attempts):
            self._wait("beginning")
            self._welcome(agreed, final=final, refuse=True)
            if len(self._begun) >= self._offering.needed:
                return
        raise PeerError(
            f"{self.talk.job}: {len(self._begun)} of the {self._offering.needed} members needed could begin; "
            f"{self._offering.reasons()}"
        )

    def _welcome(self, agreed: Agreed, *, final: bool = True, refuse: bool = False) -> None:
        """Bring members that are there into the job: those that came later, or were started again, as well."""
        online = self.talk.transport.online()
        late = [name for name in self.job.members if name in online and name not in self._begun]
        late = [name for name in late if name in self._offering.accepted or not refuse]
        if not late:
            return
        self.talk.progress.phase("preparing", late, self.job.phase_seconds)
        blobs = agreed.to_blobs()
        contents: dict[str, Content] = {
            name: ({"final": final}, blobs) for name in late if name in self._offering.accepted
        }
        for name, answer in self.talk.ask("begin", contents, self.job.phase_seconds):
            if answer.kind == "begun":
                self._begun.add(name)
            elif answer.kind == "refused":
                self._offering.refuse(name, words_of(answer))
            else:
                self.talk.progress.fault(name, words_of(answer), dropped=False)

    # --- training ---------------------------------------------------------------------------------------------------

    def _train(self, facts: JobFacts, way: Exit) -> State:
        """The rounds, from the last one that is on disk."""
        model, checkpoints = facts.build(), Checkpoints(self.folder / CHECKPOINTS)
        start = checkpoints.load(STAGE)
        if start is not None:
            before = (r for r in round_records(self.folder) if r["stage"] == STAGE and r["round"] < start.round)
            self._records = sorted(before, key=lambda record: record["round"])

        def keep(bound: BoundRound, total: Total, state: State) -> None:
            record = round_record(STAGE, bound, total) | {"real_masks": bound.aggregation == "secure"}
            record |= {"attempt": engine.done[-1].attempt, "members": engine.done[-1].members}
            self._records.append(record)
            append_line(self.folder / ROUNDS_FILE, json.dumps(record))
            checkpoints.save(STAGE, state)
            self.talk.progress.round_done({"round": bound.spec.index, "clients": total.finishers})
            self.talk.progress.spent(_spent(way, facts.plan))

        engine = self._network("model", facts.plan)
        engine.done = self._done
        return run_rounds(model, start or facts.opening(), engine, facts.plan, keep, exit=way, what=model.name)

    def _network(self, what: str, plan: Plan) -> NetworkEngine:
        return NetworkEngine(self.talk, self.job, plan, self.journal, what, self._alike, gathered=self._gathered)

    def _gathered(self) -> None:
        """Before each attempt: members that are back are offered the job again, and begin it."""
        if self._agreed is None:
            return
        self._offering.ask()
        self._welcome(self._agreed)

    def _facts(self, agreed: Agreed) -> JobFacts:
        return facts_of(self.job, agreed)

    # --- afterwards -------------------------------------------------------------------------------------------------

    def _finished(self, facts: JobFacts, agreed: Agreed, state: State, way: Exit, timing: dict[str, float]) -> Run:
        """The run folder, signed."""
        run = Run(facts.build(), state, facts.catalogue)
        known = JointFacts(self.job, self.talk.job, self._records, way, timing, self.folder, self.engine, agreed)
        run.result = joint_result(run, known)
        self._write(run)
        return run

    def _write(self, run: Run) -> None:
        run.write_model(self.folder)
        write_reports(self.folder, run.result, HEADLINE.format(self.job.at[0]))
        run.sign(self.folder)

    def _deliver(self) -> None:
        """Send the signed model until somebody has it; each member checks it and measures for itself what it gains."""
        for _ in range(self.job.attempts):
            self.talk.wait_for(1, self._begun, self.job.patience_seconds, "delivering the model")
            self._send_model()
            if self._has_model:
                return
        raise PeerError(f"{self.talk.job}: no member took the finished model; it is in {self.folder}")

    def _send_model(self) -> None:
        """Send it to those who are there and do not have it."""
        online = self.talk.transport.online()
        there = [name for name in sorted(self._begun - self._has_model) if name in online]
        blobs = {name: read_bytes(self.folder / name) for name in SENT}
        contents: dict[str, Content] = {name: ({"done": mine(self._done, name)}, blobs) for name in there}

        def everybody(answered: frozenset[str]) -> bool:
            gone = set(there) - set(self.talk.transport.online())
            return answered >= set(there) - gone  # measuring may take long, and who is gone is not waited for

        if there:
            self.talk.progress.phase("delivering the model", contents, self.job.patience_seconds)
        for name, answer in self.talk.ask("result", contents, self.job.patience_seconds, everybody):
            if answer.kind == "kept":
                self._has_model.add(name)
            else:
                self.talk.progress.fault(name, words_of(answer), dropped=False)

    @property
    def _done(self) -> list[Done]:
        """The sums that the model is made of."""
        return [Done(one["round"], one["attempt"], tuple(one["members"])) for one in self._records]

    def _report(self, run: Run, way: Exit) -> None:
        """What members report of the model's worth: sums over users and over organisations, and nothing else."""
        job, plan = self.job, self.job.whole_plan
        if not job.evaluate or (plan.private and not job.metrics_share):
            return
        found: dict[str, Any] = {}
        for what, names in (
            ("metrics", metric_names(job.at, private=plan.private)),
            ("comparison", comparison_names()),
        ):
            paid = job.report_plan
            summand: Summand = PrivateMetrics(names)
            try:
                state = run_rounds(summand, State(0), self._network(what, paid), paid, exit=way, what=what)
            except PeerError as error:
                self.talk.progress.event(f"{what} were not reported: {error}")
                continue
            found[what] = {
                "values": dict(zip(names, state["means"].tolist(), strict=True)),
                "noise": dict(zip(names, state["std"].tolist(), strict=True)),
                "of": float(state["users"]),
            }
        if "comparison" in found:  # what was summed is a number in [0, 1]; what people read is a gain
            one = found["comparison"]
            one["values"]["gain"] = as_gain(one["values"]["gain"])
            one["noise"]["gain"] = 2 * LARGEST_GAIN * one["noise"]["gain"]
        if found:
            self._note(run, found, way)

    def _note(self, run: Run, found: Mapping[str, Any], way: Exit) -> None:
        """Put what was reported into the run's result, and sign again."""
        known = JointFacts(self.job, self.talk.job, self._records, way, run.result["timing"], self.folder, self.engine)
        run.result = joint_result(run, replace(known, agreed=self._agreed, reported=found))
        self._write(run)
        self.talk.progress.spent(_spent(way, self.job.whole_plan))


def facts_of(job: Job, agreed: Agreed) -> JobFacts:
    """What both sides compute the training from."""
    return JobFacts(
        model=job.model,
        plan=job.training_plan,
        seed=job.seed,
        items=agreed.items,
        texts=agreed.texts,
        explicit=job.ratings,
        timed=job.timed,
        evaluate_at=job.at,
        members=len(job.members),
    )


def _spent(way: Exit, plan: Plan) -> float | None:
    if not plan.private or not way.events:
        return None
    return accountant.epsilon(way.events, float(plan.delta or 0), plan.accountant)


def _bytes(answer: Envelope) -> dict[str, bytes]:
    return {name: bytes(blob) for name, blob in answer.blobs.items()}
