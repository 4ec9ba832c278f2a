"""A draft of the inputs to a personal information protection impact assessment: PIPL Articles 55 and 56.

The Personal Information Protection Law of the People's Republic of China, in force since 1 November 2021: Article 55
says when an assessment must be made beforehand, Article 56 what it contains, and that it is kept for three years at
least.
"""

from __future__ import annotations

from coterie.report.documents import common
from coterie.report.documents.common import about, ask, budget, categories, counted, named_parties, purposes, subjects
from coterie.report.documents.drafts import FLOW, received
from coterie.report.documents.facts import Facts
from coterie.report.documents.measures import technical
from coterie.report.documents.risks import plain_risks
from coterie.report.documents.words import Blank, Document, Field, Section, Table, Text, say

HANDLER = Blank("personal information handler (个人信息处理者): name and contact")
BASIS = Blank("legal basis of Article 13, such as consent, or what a contract needs")


def made(facts: Facts) -> Document:
    """The inputs, in the order of the law."""
    return Document(
        kind="pipl",
        title="Inputs to a personal information protection impact assessment (PIPL Articles 55 and 56)",
        lead=("个人信息保护影响评估: training a recommender together with others, and suggesting items with it.",),
        sections=(
            Section("handler", "Handler and activity", fields=_handler(facts), points=FLOW),
            _required(facts),
            _purpose(facts),
            _influence(facts),
            Section(
                "56-3",
                "Article 56(3): whether measures are lawful, effective and fit the risk",
                text=(say("{judged}.", judged=Blank("whether these measures fit the degree of risk")),),
                points=technical(facts),
            ),
            budget(facts),
            _automated(),
            _record(),
        ),
        on=facts.on,
        about=about(facts),
        draft=True,
    )


def _handler(facts: Facts) -> tuple[Field, ...]:
    return (
        ask("handler", "handler", HANDLER),
        ask("person", "person in charge of protection (Article 52), if one is required", Blank("name and contact")),
        Field("joint", "others who decide on purposes and methods (Article 20)", named_parties(facts)),
        ask(
            "agreement", "agreement with them (Article 20)", Blank("who owes what; the draft gdpr-26 has the questions")
        ),
    )


def _required(facts: Facts) -> Section:
    rows: tuple[tuple[str, Text], ...] = (
        ("(1) sensitive personal information (Article 28)", _sensitive()),
        (
            "(2) automated decision-making (Article 24)",
            ("Yes: a program chooses what is suggested, from what people did.",),
        ),
        ("(3) entrusting, providing or disclosing to others (Articles 21, 23, 25)", _provided(facts)),
        ("(4) providing abroad (Articles 38 to 43)", (Blank("whether parties or the server stand outside China"),)),
        ("(5) other activities with major influence on people", (Blank("whether there is any"),)),
    )
    return Section(
        "55",
        "Article 55: whether an assessment is required",
        fields=tuple(Field(f"55-{at}", label, text) for at, (label, text) in enumerate(rows, start=1)),
    )


def _sensitive() -> Text:
    return say(
        "The software reads no such category by itself; items can be of one. {who}.",
        who=Blank("whether items tell of health, religion, biometrics, finance, whereabouts; children under 14"),
    )


def _provided(facts: Facts) -> Text:
    if facts.devices:
        return say("Sums leave each device. {who}.", who=Blank("who receives them"))
    if facts.epsilon is None:
        return say(
            "Sums over people, and the model, reach others. They carry no noise, so that they may still be personal "
            "information. {judged}.",
            judged=Blank("whether that is providing (Article 23), and separate consent"),
        )
    return say(
        "Sums with noise, and the model, reach others. Whether that is anonymised in the sense of Article 73(4) is a "
        "question of law. {judged}.",
        judged=Blank("whether that is providing (Article 23), and separate consent"),
    )


def _purpose(facts: Facts) -> Section:
    return Section(
        "56-1",
        "Article 56(1): whether purposes and methods are lawful, legitimate and necessary",
        text=(purposes(facts), subjects(facts)),
        fields=(
            *counted(facts),
            ask("basis", "legal basis", BASIS),
            Field(
                "necessary",
                "smallest scope (Article 6)",
                ("Rows, ids of people and baskets stay where they are; sums over people are enough for training.",),
            ),
            ask("notice", "how people are told (Article 17)", Blank("where; the draft privacy-notice has a text")),
            ask("kept", "kept for (Article 19)", common.KEEP_LOGS),
        ),
        tables=(categories(facts),),
    )


def _influence(facts: Facts) -> Section:
    likely, severe = Blank("likelihood"), Blank("influence")
    rows = tuple((risk, text, (likely,), (severe,)) for risk, text in plain_risks(facts))
    table = Table("Risks, and how this run bears on them.", ("risk", "this run", "likelihood", "influence"), rows)
    return Section(
        "56-2",
        "Article 56(2): influence on people's rights and interests, and security risks",
        points=received(facts),
        tables=(table,),
    )


def _automated() -> Section:
    return Section(
        "24",
        "Article 24: automated decision-making",
        points=(
            ("Transparent and fair: each suggestion can be explained by the items that led to it (--explain).",),
            ("No unreasonable differences in price: the software sets no prices.",),
            ("A choice that does not rest on a person's traits: suggestions for a basket alone, or what is popular.",),
            say("How people refuse: {how}.", how=Blank("where the switch is")),
        ),
    )


def _record() -> Section:
    return Section(
        "record",
        "Result and record",
        text=(("The report and the record of how it was handled are kept for at least three years (Article 56).",),),
        fields=(
            ask("result", "result", Blank("result, and what is changed because of it")),
            ask("decided", "decided by", Blank("name and date")),
        ),
    )
