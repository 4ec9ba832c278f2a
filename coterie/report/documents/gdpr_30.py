"""A draft of the record of processing activities: GDPR Article 30(1), (a) to (g)."""

from __future__ import annotations

from coterie.report.documents import common
from coterie.report.documents.common import about, ask, budget, categories, counted, named_parties, purposes, subjects
from coterie.report.documents.drafts import received
from coterie.report.documents.facts import Facts
from coterie.report.documents.measures import technical
from coterie.report.documents.words import Blank, Code, Document, Field, Section, Text, say


def made(facts: Facts) -> Document:
    """The record of one controller, about training and using this recommender."""
    return Document(
        kind="gdpr-30",
        title="Record of processing activities (GDPR Article 30)",
        lead=("Activity: training a recommender together with others, and suggesting items with it.",),
        sections=(
            _controller(facts),
            Section("b", "(b) Purposes of the processing", text=(purposes(facts),)),
            _people(facts),
            _recipients(facts),
            _transfers(facts),
            _erasure(facts),
            Section("g", "(g) Technical and organisational security measures", points=technical(facts)),
            budget(facts, title="Ledger of spent privacy (as evidence for (g))"),
        ),
        on=facts.on,
        about=about(facts),
        draft=True,
    )


def _controller(facts: Facts) -> Section:
    return Section(
        "a",
        "(a) Controller",
        fields=(
            ask("controller", "controller", common.CONTROLLER),
            Field("joint_controllers", "joint controllers", _joint(facts)),
            ask("representative", "representative", common.REPRESENTATIVE),
            ask("dpo", "data protection officer", common.DPO),
        ),
    )


def _joint(facts: Facts) -> Text:
    parties = named_parties(facts)
    if facts.devices:
        return (*parties, " ", Blank("whether anybody else decides on purposes and means"))
    return say(
        "The training names as clients: {parties}. {who}.",
        parties=parties,
        who=Blank("which of them are organisations that decide on purposes and means with you: names and contacts"),
    )


def _people(facts: Facts) -> Section:
    return Section(
        "c",
        "(c) Categories of data subjects and of personal data",
        text=(subjects(facts),),
        fields=(
            *counted(facts),
            ask(
                "special",
                "special categories (Articles 9 and 10)",
                Blank("whether any item says something of the kind"),
            ),
        ),
        tables=(categories(facts),),
    )


def _recipients(facts: Facts) -> Section:
    return Section(
        "d",
        "(d) Categories of recipients",
        points=(
            *received(facts),
            ("Whoever is shown a suggestion sees what the model makes of what others took.",),
            *_tracker(facts),
            (common.RECIPIENTS,),
        ),
    )


def _tracker(facts: Facts) -> tuple[Text, ...]:
    """The tracking server, which got the run's figures."""
    if facts.tracker is None:
        return ()
    return (
        say(
            "The tracking server {server} received parameters, figures and reports of the run. {who}.",
            server=Code(facts.tracker),
            who=Blank("who runs it, and where it stands"),
        ),
    )


def _transfers(facts: Facts) -> Section:
    known = "Where clients and server stand is not known to the software."
    if facts.simulation:
        sent = "nothing else was sent anywhere by it" if facts.tracker else "nothing was sent anywhere by it"
        known = f"The training ran in one process: {sent}."
    return Section(
        "e",
        "(e) Transfers to third countries or international organisations",
        text=((known,),),
        fields=(
            ask("countries", "countries and organisations", common.TRANSFERS),
            ask("safeguards", "safeguards", common.SAFEGUARDS),
        ),
    )


def _erasure(facts: Facts) -> Section:
    noised = facts.epsilon is not None
    after = (
        "A model holds what was summed. It is not changed when somebody's rows are erased: leave them out of the next "
        "training, which replaces it."
    )
    promise = " What it may say about them until then is bounded by epsilon." if noised else ""
    return Section(
        "f",
        "(f) Time limits for erasure",
        text=((after + promise,),),
        fields=(
            ask("logs", "logs", common.KEEP_LOGS),
            ask("runs", "run folders and models", common.KEEP_RUNS),
            Field(
                "ledger", "ledger of spent privacy", ("It names no person, and is kept as long as its promise counts.",)
            ),
        ),
    )
