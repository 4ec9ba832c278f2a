"""The privacy card at length: the fields of NIST SP 800-226 (2025), from the guarantee down to what it rests on.

The publication draws them as a pyramid: epsilon and the unit of privacy on top; below them algorithms, utility, bias
and correct implementation; at the bottom trust, security and how data were collected. Each level is only as good as
those under it. The short card (`coterie.report.card`) states the same facts on one page.
"""

from __future__ import annotations

from coterie.report import reading
from coterie.report.card import Card
from coterie.report.documents.common import about, budget, categories, counted, fact, figure, odds
from coterie.report.documents.facts import Facts
from coterie.report.documents.hazards import hazards
from coterie.report.documents.measures import unit
from coterie.report.documents.run_report import comparison
from coterie.report.documents.words import (
    NOT_STATED,
    Code,
    Document,
    Field,
    Section,
    Strong,
    Table,
    Text,
    marked,
    prose,
)

NOTHING: Text = (Strong("Privacy is not stated."), " The run's result holds no privacy facts; nothing may be assumed.")


def made(facts: Facts) -> Document:
    """The card; where a run states nothing, so does the card.

    Raises:
        PlanError: the plan is one that cannot be described.
    """
    card = facts.card
    return Document(
        kind="privacy-card",
        title="Privacy card",
        lead=NOTHING if card is None else marked(card.lead),
        sections=(
            _guarantee(facts, card),
            _unit(facts, card),
            _algorithms(facts, card),
            comparison(facts, "utility", "Utility"),
            _bias(),
            _implementation(facts),
            budget(facts, "composition", "Composition: the budget ledger"),
            _trust(facts, card),
            _security(facts),
            _collection(facts, card),
            Section("hazards", "What goes wrong most often, and how this run stands", tables=(hazards(facts),)),
            _uncovered(card),
        ),
        on=facts.on,
        about=about(facts),
    )


def _guarantee(facts: Facts, card: Card | None) -> Section:
    privacy, epsilon = facts.privacy, facts.epsilon
    delta, spent = reading.known(privacy.get("delta")), reading.known(privacy.get("epsilon_spent"))
    towards = reading.known(privacy.get("epsilon_towards_coordinator"))
    fields = [
        Field("epsilon", "privacy parameter epsilon", _epsilon(facts, card), epsilon),
        fact("delta", "delta", delta, figure(delta)),
        Field("variant", "kind of promise", _variant(facts)),
        Field(
            "meaning", "what this means for one person", (odds(epsilon),) if epsilon is not None else _no_meaning(card)
        ),
    ]
    if epsilon is not None:
        fields += [
            fact("epsilon_spent", "spent by this run, in all", spent, figure(spent)),
            fact("epsilon_towards_coordinator", "towards who knows who took part", towards, figure(towards)),
            fact("attempts", "releases that were charged", privacy.get("attempts")),
        ]
    return Section("guarantee", "The guarantee", fields=tuple(fields))


def _epsilon(facts: Facts, card: Card | None) -> Text:
    if card is None:
        return NOT_STATED
    return (figure(facts.epsilon),) if facts.epsilon is not None else marked(card.promise["epsilon"])


def _variant(facts: Facts) -> Text:
    if facts.epsilon is None:
        return ("None.",) if facts.privacy else NOT_STATED
    how = {"pld": "privacy loss distributions", "rdp": "Rényi differential privacy"}
    name = str(facts.privacy.get("accountant"))
    return prose(
        "Approximate differential privacy, (epsilon, delta). The releases were composed by "
        f"{how.get(name, name)}, for the sampler that ran.",
    )


def _no_meaning(card: Card | None) -> Text:
    if card is None:
        return NOT_STATED
    return ("Nothing bounds what somebody may learn about one person from the sums or the model.",)


def _unit(facts: Facts, card: Card | None) -> Section:
    privacy = facts.privacy
    several, guests = privacy.get("max_clients_per_user"), privacy.get("guests")
    kinds = {
        "drop": "Left out: a row without a user belongs to nobody whom the promise could be about.",
        "basket": "Each basket is a unit of its own: a guest with two baskets is covered for each, not for both.",
    }
    neighbours = None if card is None else card.promise.get("neighbours")
    return Section(
        "unit",
        "Unit of privacy and neighbours",
        fields=(
            fact("unit", "unit of privacy", privacy.get("unit"), f"{unit(facts)[0].upper()}{unit(facts)[1:]}."),
            fact("neighbours", "neighbouring data sets", privacy.get("neighbours"), neighbours),
            Field("bounded", "bounded or unbounded", _bounded(privacy.get("neighbours"))),
            fact("max_clients_per_user", "clients at which one person may appear", several),
            fact("guests", "rows without a user", guests, kinds.get(str(guests))),
            fact("items_from", "list of items", privacy.get("items_from"), _items(facts)),
        ),
    )


def _bounded(neighbours: str | None) -> Text:
    kinds = {
        "add-or-remove-one": "Unbounded: the number of people is itself protected.",
        "replace-one": "Bounded: how many people there are is taken to be known.",
    }
    return (kinds[neighbours],) if neighbours in kinds else NOT_STATED


def _items(facts: Facts) -> str:
    if facts.privacy.get("items_from") == "the log" and facts.epsilon is not None:
        return "Read from the log and taken to be public: an item that one person alone had would show."
    return f"From {facts.privacy.get('items_from')}."


def _algorithms(facts: Facts, card: Card | None) -> Section:
    privacy = facts.privacy
    promise = {} if card is None else card.promise
    mechanism: Text = NOT_STATED if card is None else ("None.",)
    if facts.privacy.get("noise") not in (None, "none"):
        mechanism = (
            "Discrete Gaussian noise on sums of integers; each person's part is clipped, then made whole numbers.",
        )
    multiplier = reading.known(privacy.get("noise_multiplier"))
    tables = () if card is None or not card.parts else (_parts(facts, card),)
    return Section(
        "algorithms",
        "Algorithms",
        fields=(
            Field("mechanism", "mechanism", mechanism),
            fact("algorithm", "what is computed from the sums", facts.model, (Code(str(facts.model)),)),
            fact("noise_multiplier", "noise over one person's bound", multiplier, figure(multiplier)),
            fact("noise", "who adds it", promise.get("noise"), promise.get("noise")),
            fact("sampler", "who takes part in a round", promise.get("sampler"), promise.get("sampler")),
            fact("rounds", "rounds", privacy.get("rounds")),
            Field(
                "queries",
                "kind of queries",
                ("Fixed in advance: the sums that the training needs. What has to be done again is charged again.",),
            ),
        ),
        tables=tables,
    )


def _parts(facts: Facts, card: Card) -> Table:
    rows = [
        (
            (reading.count(part.get("round")),),
            (Code(str(part.get("name"))),),
            (reading.count(part.get("size")),),
            (figure(reading.known(part.get("l2")), "unbounded"),),
            (figure(reading.known(part.get("linf")), "unbounded"),),
            (figure(reading.known(part.get("noise_std")) if facts.privacy.get("noise") != "none" else None, "none"),),
        )
        for part in card.parts
    ]
    return Table(
        "What is summed, how far one person can move it (sensitivity), and the noise on each number.",
        ("round", "part", "numbers", "by one person (L2)", "each number (L∞)", "noise"),
        tuple(dict.fromkeys(rows)),
        frozenset({0, 2, 3, 4, 5}),
    )


def _bias() -> Section:
    return Section(
        "bias",
        "Bias",
        points=(
            marked(
                "**Statistical.** Clipping weighs down whoever has much; numbers are cut towards zero; rare items "
                "drown in noise sooner than popular ones. Noise itself has mean zero."
            ),
            marked("**Systemic.** Logs hold those who bought, at the clients that take part: others are not heard."),
            marked("**Human.** Who chooses parties, items, dates and what counts as success: not stated."),
            ("Differences by group of people were not measured: logs hold no groups.",),
        ),
    )


def _implementation(facts: Facts) -> Section:
    source = facts.privacy.get("noise_source")
    return Section(
        "implementation",
        "Correctness and side channels",
        fields=(
            Field(
                "floating_point",
                "floating point",
                prose(
                    "Contributions, and noise where there is any, are integers and are added exactly in a ring, so low "
                    "bits of floats give nothing away. Floats appear after the release alone.",
                ),
            ),
            fact("noise_source", "randomness", source, None if source is None else f"From the {source}."),
            Field(
                "timing",
                "timing",
                prose(
                    "A draw takes the same steps whatever its size, but it is no constant-time code: a program that "
                    "shares the processor's caches may learn something. How long a training takes is not hidden.",
                ),
            ),
            Field(
                "traffic", "sizes of messages", ("They depend on the model and the number of items, on nobody's data.",)
            ),
            fact("software", "software", facts.manifest.get("coterie"), f"Coterie {facts.manifest.get('coterie')}"),
            Field("audit", "tested from outside", NOT_STATED),
        ),
    )


def _trust(facts: Facts, card: Card | None) -> Section:
    privacy, promise = facts.privacy, {} if card is None else card.promise
    models = {
        "none": "No noise: whoever sees a sum is trusted.",
        "central": "Central: the server is trusted to add noise.",
    }
    models |= {
        "distributed": "Distributed: each client adds a share, and the server has no sum without noise.",
        "local": "Local: each person's own contribution is noised, and nobody is trusted.",
    }
    return Section(
        "trust",
        "Trust model",
        fields=(
            fact("model", "central, distributed or local", privacy.get("noise"), models.get(str(privacy.get("noise")))),
            fact("aggregation", "aggregation", privacy.get("aggregation"), promise.get("aggregation")),
            fact("masks", "masks", privacy.get("masks"), promise.get("masks")),
            fact("holds_against", "holds against", privacy.get("holds_against")),
            fact("min_clients", "fewest clients in a sum", privacy.get("min_clients")),
            fact("max_colluding", "clients that may work with the server", privacy.get("max_colluding")),
        ),
        points=() if card is None else tuple(marked(line) for line in card.sees),
    )


def _security(facts: Facts) -> Section:
    signed = None if not facts.manifest else "Ed25519 over the SHA-256 of every file"
    return Section(
        "security",
        "Security and access control",
        fields=(
            fact("signature", "run folder signed", signed),
            Field("access", "who may read the run folder and the logs", NOT_STATED),
            Field("at_rest", "encrypted at rest", NOT_STATED),
            Field("queries", "who may ask the model", NOT_STATED),
        ),
        points=((_folder(facts),),),
    )


def _folder(facts: Facts) -> str:
    """What the run folder gives away."""
    if facts.simulation and (facts.epsilon is None or facts.raw):
        return "The folder of this simulated run holds more than any one party would have: handle it like the logs."
    if facts.kept_at_home:
        return "The folder holds a model that was made with the organisation's own rows, without noise: it stays there."
    if facts.epsilon is not None:
        return "What the folder says of people is noised; it names items, settings and files as they are."
    return "The folder holds the model, and with it the exact sum over all clients."


def _collection(facts: Facts, card: Card | None) -> Section:
    return Section(
        "collection",
        "Data collection and exposure",
        fields=(
            *counted(facts),
            Field("collected", "how and why the logs were collected", NOT_STATED),
            Field("kept", "how long they are kept", NOT_STATED),
        ),
        points=() if card is None else tuple(marked(line) for line in card.leaves),
        tables=(categories(facts),),
    )


def _uncovered(card: Card | None) -> Section:
    if card is None:
        return Section("uncovered", "What this does not cover", text=(NOT_STATED,))
    return Section("uncovered", "What this does not cover", points=tuple(marked(line) for line in card.uncovered))
