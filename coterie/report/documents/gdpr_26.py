"""A draft of the arrangement between joint controllers: GDPR Article 26, who owes what to people and each other."""

from __future__ import annotations

from coterie.report import reading
from coterie.report.documents import common
from coterie.report.documents.common import MOST_NAMES, about, ask, budget, figure, purposes
from coterie.report.documents.drafts import FLOW, received
from coterie.report.documents.facts import Facts
from coterie.report.documents.words import Blank, Document, Field, Section, Strong, Table, Text, prose, say

WHO = Blank("who")
CONTACT = Blank("name, address, contact")
UNNAMED = 20  # parties that get a row of their own although nothing names them

DUTIES: tuple[tuple[str, str, str], ...] = (
    ("Inform people", "13, 14", "A draft of the text comes with this one (privacy-notice)."),
    ("Contact point for people", "26(1)", "None: people may turn to each party all the same (26(3))."),
    ("Access", "15", "Each party has its own rows, and training hands them to nobody. The model holds no rows."),
    ("Rectification", "16", "Correct the log; the next training learns from the corrected rows."),
    ("Erasure", "17", "Erase the rows; the next training leaves the person out and replaces the model."),
    ("Restriction", "18", "Leave the rows out of the log that the node reads."),
    ("Portability", "20", "Rows at the party that has them."),
    ("Objection, and no suggestions from one's own history", "21", "Leave the rows out; answer without history."),
    ("No decision by a machine alone with legal effect", "22", "Suggestions are none."),
    ("Data protection by design and by default", "25", "The plan of the training, fixed before it begins."),
    ("Processors", "28", "The software knows of no processor; whoever runs the server may be one."),
    ("Records of processing", "30", "A draft for each party comes with this one (gdpr-30)."),
    ("Security", "32", "What this training did is listed in the draft gdpr-35 under (d)."),
    (
        "Breaches: notify the authority, tell people",
        "33, 34",
        "Over a network, each node logs what leaves it, and when.",
    ),
    ("Impact assessment", "35, 36", "A draft of its inputs comes with this one (gdpr-35)."),
    ("Transfers to third countries", "44 to 49", "Where parties and server stand is not known to the software."),
)
"""What controllers owe, where it stands, and how the software bears on it."""


def made(facts: Facts) -> Document:
    """The arrangement; where clients are devices of one controller's users it says that there is none to make."""
    return Document(
        kind="gdpr-26",
        title="Arrangement between joint controllers (GDPR Article 26)",
        lead=_lead(facts),
        sections=(
            _parties(facts),
            Section("purpose", "What is decided together", text=(purposes(facts),), fields=_means(facts)),
            Section("flow", "What happens to data, and who gets what", points=(*FLOW, *received(facts))),
            _duties(),
            _promises(facts),
            budget(facts),
            _ending(),
        ),
        on=facts.on,
        about=about(facts),
        draft=True,
    )


def _lead(facts: Facts) -> Text:
    if facts.devices:
        return prose(
            Strong("Probably not needed:"),
            " every client of this training is one person's device, so no second controller is known. It matters where "
            "another organisation decides on purposes and means with you.",
        )
    n = facts.n_parties
    if n is not None and n > 1:
        return (f"{n:,} clients train one model together. Whether they are joint controllers is for them to decide.",)
    return ("Between those who train one model together, where they decide on purposes and means jointly.",)


def _parties(facts: Facts) -> Section:
    names: list[Text] = [(name,) for name in facts.parties[:MOST_NAMES]]
    if not names and not facts.devices:
        n = min(facts.n_parties or 2, UNNAMED)
        names = [(f"party {at}: ", Blank(f"name of party {at}")) for at in range(1, n + 1)]
    has: Text = ("its own log, its own model",)
    if not names:
        names, has = [("the operator",)], ("no log: each device has its own",)
    rows = [(name, (CONTACT,), has, ("sums over its people",), ("the model",)) for name in names]
    server: Text = ("whoever runs the server (coordinator): ", WHO)
    sees = "each party's sums" if facts.privacy.get("aggregation") == "plain" else "the sum over all parties"
    rows.append((server, (CONTACT,), ("no log",), ("the model",), (sees,)))
    left = len(facts.parties) - MOST_NAMES
    more = f" {left:,} more parties are not listed." if left > 0 else ""
    note = "They are clients of a simulation: they may be branches of one company, and then one party." if (
        facts.simulation and not facts.devices
    ) else ""  # fmt: skip
    table = Table(
        f"Who takes part, and with what.{more}", ("party", "contact", "holds", "sends", "receives"), tuple(rows)
    )
    return Section("parties", "The parties", text=((note,),) if note else (), tables=(table,))


def _means(facts: Facts) -> tuple[Field, ...]:
    fewest = facts.privacy.get("min_clients")
    return (
        Field("model", "model", (str(facts.model or "not stated"),), facts.model),
        Field("protection", "protection", (str(facts.privacy.get("statement") or "not stated"),)),
        Field("fewest", "fewest parties in a sum", (reading.count(fewest),), fewest),
        ask("basis", "legal basis of each party", common.LEGAL_BASIS),
        ask(
            "conduct", "who starts trainings, and who may refuse one", Blank("who; a node's policy.toml can enforce it")
        ),
    )


def _duties() -> Section:
    rows = tuple(((duty,), (article,), (given,), (WHO,)) for duty, article, given in DUTIES)
    table = Table("Duties towards people and authorities.", ("duty", "Article", "what the software gives", "who"), rows)
    return Section(
        "duties",
        "Who does what",
        text=(
            ("People may exercise their rights against each of the parties, whatever is written here (26(3)).",),
            say(
                "The essence of this arrangement is made available to people at {place} (26(2)).", place=Blank("where")
            ),
        ),
        tables=(table,),
    )


def _promises(facts: Facts) -> Section:
    privacy, policy = facts.privacy, facts.policy
    spent = figure(reading.known(privacy.get("epsilon_spent")), "none is promised")
    fields = [
        Field("epsilon", "epsilon of this training", (figure(facts.epsilon, "none is promised"),), facts.epsilon),
        Field("spent", "spent by it", (spent if facts.epsilon is not None else "none is promised",)),
        ask("limit", "most that may be spent together", Blank("epsilon for life, and in any 30 days")),
        ask(
            "colluding",
            "that parties do not put their sums together",
            Blank("as a duty, with what follows from a breach"),
        ),
        ask("use", "what the model may be used for, and by whom", Blank("use, handing on, publication")),
    ]
    if policy is not None:
        fields += [
            Field("policy_total", "limit of this party's node, for life", (str(policy.max_epsilon_total),)),
            Field("policy_month", "and in 30 days", (str(policy.max_epsilon_month),)),
            Field(
                "policy_clients", "fewest known organisations in a sum", (str(policy.min_clients),), policy.min_clients
            ),
            Field(
                "policy_pinned", "identities it has pinned", (", ".join(policy.pinned) or "none",), dict(policy.pinned)
            ),
        ]
    return Section("promises", "What the parties promise each other", fields=tuple(fields))


def _ending() -> Section:
    return Section(
        "ending",
        "Beginning, changes, end",
        fields=(
            ask("begins", "begins", Blank("date")),
            ask("joining", "joining and leaving", Blank("notice; who must agree that somebody joins")),
            Field(
                "after",
                "after somebody has left",
                prose(
                    "The model still holds what their sums added, until a training without them replaces it. Without "
                    "noise, whoever has both models can tell the difference, which is theirs.",
                ),
            ),
            ask("law", "law and courts", Blank("law that applies, and courts")),
            ask("signed", "signed", Blank("names, places, dates")),
        ),
    )
