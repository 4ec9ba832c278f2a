"""A draft of what a data protection impact assessment needs to know: GDPR Article 35(7), (a) to (d)."""

from __future__ import annotations

from coterie.report import reading
from coterie.report.documents import common
from coterie.report.documents.common import (
    about,
    ask,
    budget,
    categories,
    counted,
    named_parties,
    odds,
    purposes,
    subjects,
)
from coterie.report.documents.drafts import FLOW, received
from coterie.report.documents.facts import Facts
from coterie.report.documents.measures import technical
from coterie.report.documents.risks import risks
from coterie.report.documents.words import NOT_STATED, Blank, Code, Document, Field, Section, Text, listed, marked, say


def made(facts: Facts) -> Document:
    """The inputs; whether an assessment is required, and what follows from it, is for people."""
    return Document(
        kind="gdpr-35",
        title="Inputs to a data protection impact assessment (GDPR Article 35)",
        lead=("Training a recommender together with others, and suggesting items with it.",),
        sections=(
            _needed(facts),
            _description(facts),
            _necessity(facts),
            Section(
                "c",
                "(c) Risks to the rights and freedoms of people",
                text=(_worst(facts),),
                tables=(risks(facts),),
            ),
            Section("d", "(d) Measures to address the risks", points=technical(facts)),
            budget(facts, title="Evidence: the ledger of spent privacy"),
            _people(),
        ),
        on=facts.on,
        about=about(facts),
        draft=True,
    )


def _needed(facts: Facts) -> Section:
    n = facts.data.get("users")
    return Section(
        "needed",
        "Whether an assessment is required (Article 35(1), (3))",
        fields=(
            Field(
                "profiling",
                "evaluation of people, profiling",
                ("Yes in the sense of Article 4(4), where suggestions are made from what one person did before.",),
            ),
            Field(
                "decisions",
                "decisions with legal or similar effect",
                ("Not by suggesting items, as the software does it.",),
            ),
            Field(
                "scale", "large scale", say("{n}. {judged}", n=_scale(n), judged=Blank("whether that is large scale"))
            ),
            ask(
                "special",
                "special categories or vulnerable people",
                Blank("whether items or customers are of the kind"),
            ),
            Field("novel", "new technology", ("Federated training and differential privacy are still uncommon.",)),
            ask("lists", "lists of the supervisory authority", Blank("whether its lists name such processing")),
            ask("required", "result", Blank("whether an assessment is required, and why")),
        ),
    )


def _scale(users: int | None) -> str:
    return "How many people is not stated" if users is None else f"{reading.count(users)} people in this training"


def _description(facts: Facts) -> Section:
    return Section(
        "a",
        "(a) The processing and its purposes",
        text=(purposes(facts), subjects(facts)),
        fields=(
            *counted(facts),
            Field("parties", "parties", named_parties(facts)),
            ask("interest", "legitimate interest pursued, where it is the basis", Blank("interest")),
            ask("assets", "systems and people it runs on", Blank("machines, networks, staff")),
            ask("kept", "kept for", common.KEEP_LOGS),
        ),
        points=(*FLOW, *received(facts)),
        tables=(categories(facts),),
    )


def _necessity(facts: Facts) -> Section:
    roles = [Code(name) for name in facts.columns.values()]
    read: Text = say("The columns that settings name: {columns}.", columns=listed(roles)) if roles else (
        "Columns of the usual names: user, item, and where there are any time, quantity, basket and client.",
    )  # fmt: skip
    return Section(
        "b",
        "(b) Necessity and proportionality",
        fields=(
            ask("basis", "legal basis", common.LEGAL_BASIS),
            Field("minimised", "data that are read", read),
            Field(
                "stays",
                "what need not leave a party",
                ("Rows, ids of people, baskets and histories: sums over people are enough for training.",),
            ),
            Field("milder", "milder means", _milder(facts)),
            Field(
                "accuracy",
                "does it serve the purpose",
                _worth(facts),
            ),
            ask("information", "how people are told (Articles 12 to 14)", Blank("where the privacy notice stands")),
            ask("rights", "how rights are met (Articles 15 to 22)", Blank("who answers, and how long it takes")),
            ask("processors", "processors (Article 28)", Blank("contracts with processors")),
            ask("transfers", "transfers (Chapter V)", common.TRANSFERS),
        ),
    )


def _milder(facts: Facts) -> Text:
    """What else could have been done, with what it gives, where the run measured it."""
    metric = reading.main_metric(facts.result)
    found = [
        (label, reading.value(facts.result, scheme, metric))
        for scheme, label in (
            ("popularity", "best-sellers for everybody"),
            ("alone", "each party alone, so that nothing leaves"),
            ("federated", "together, so that sums leave"),
        )
        if metric
    ]
    known = [f"{label} {reading.figure(value)}" for label, value in found if value is not None]
    if not known:
        return say("Not measured in this run. {why}.", why=Blank("why best-sellers, or training alone, would not do"))
    return say(
        "{metric} (0 to 1, more is better): {known}. {why}.",
        metric=str(metric),
        known="; ".join(known),
        why=Blank("why the difference is worth it"),
    )


def _worth(facts: Facts) -> Text:
    sentence = (facts.result.get("comparison") or {}).get("sentence")
    return (f"{sentence[0].upper()}{sentence[1:]}.",) if sentence else NOT_STATED


def _worst(facts: Facts) -> Text:
    if facts.epsilon is None:
        return marked(
            "**Nothing bounds what the model may say about one person**: no differential privacy is promised. "
            "Likelihood and severity below are for you to judge."
        )
    return (f"{odds(facts.epsilon)} Likelihood and severity below are for you to judge.",)


def _people() -> Section:
    return Section(
        "consultation",
        "Advice, views and decision",
        fields=(
            ask(
                "dpo",
                "advice of the data protection officer (Article 35(2))",
                Blank("advice, and what was done with it"),
            ),
            ask("views", "views of people or their representatives (35(9))", Blank("views, or why none were sought")),
            ask("residual", "risk that is left", Blank("low, medium or high, and why it is accepted")),
            ask("prior", "prior consultation (Article 36)", Blank("whether the authority must be asked")),
            ask("review", "when this is looked at again (35(11))", Blank("date or event, such as a larger epsilon")),
            ask("decided", "decided by", Blank("name and date")),
        ),
    )
