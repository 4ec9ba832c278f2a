"""What may happen to people by a training and by suggestions, and how a run bears on each: for impact assessments."""

from __future__ import annotations

from coterie.report.documents.common import figure
from coterie.report.documents.facts import Facts
from coterie.report.documents.words import Blank, Table, Text

LIKELY, SEVERE = Blank("likelihood"), Blank("severity")


def risks(facts: Facts) -> Table:
    """One row a risk: what, how this run bears on it, and two judgements that people make."""
    rows = (
        ("Somebody finds out that a person is in a log, from the model", _membership(facts)),
        ("Purchases of a person are worked out from the model or from sums", _reconstruction(facts)),
        ("Another party takes its own part off the sum, and has that of the rest", _subtraction(facts)),
        ("Whoever runs the server looks at what single parties send", _server(facts)),
        ("Repeated trainings add up to more than each of them says", _repeated(facts)),
        ("A person is a customer of several parties, and covered at each only", _several(facts)),
        ("Suggestions show what others bought, or hint at something sensitive", _suggestions(facts)),
        ("A run folder or a log gets into wrong hands", _folder(facts)),
        ("A person objects or wants erasure, and the model still has learned from them", _erasure(facts)),
        ("Suggestions serve small groups worse, or steer people", _fairness(facts)),
    )
    return Table(
        "Risks, and how this run bears on them.",
        ("risk", "this run", "likelihood", "severity"),
        tuple(((name,), (text,), (LIKELY,), (SEVERE,)) for name, text in rows),
    )


def plain_risks(facts: Facts) -> tuple[tuple[Text, Text], ...]:
    """Risk and bearing alone."""
    return tuple((row[0], row[1]) for row in risks(facts).rows)


def _membership(facts: Facts) -> str:
    if facts.devices:
        return "Every client is one person: whoever has the list of clients knows who takes part."
    if facts.epsilon is None:
        return "Not bounded: no noise. Rare items and rare pairs give people away."
    return f"Bounded by epsilon {figure(facts.epsilon)} for one person at one client."


def _reconstruction(facts: Facts) -> str:
    if facts.epsilon is None:
        return "Not bounded: the model file holds the exact sum, and entries of single baskets can be read in it."
    return f"Bounded by the same epsilon {figure(facts.epsilon)}: noise is on every number that was released."


def _subtraction(facts: Facts) -> str:
    n = facts.n_parties
    if facts.devices or n == 1:
        return "There is no other organisation in the sum."
    if facts.epsilon is None:
        return "Possible, exactly: with two parties for each of them, with more for all but one together."
    return "What is left after that still carries noise; as sums over people it is covered, as business figures hardly."


def _server(facts: Facts) -> str:
    if facts.secure:
        return f"It sees sums over all clients alone; this holds against {facts.privacy.get('holds_against')}."
    if facts.privacy.get("aggregation") == "secure":
        return "It would see sums over all clients alone; in this simulation masks were left out."
    if facts.privacy.get("aggregation") == "plain":
        return "It sees what each client sends, in the clear, and must be trusted."
    return "Not stated."


def _repeated(facts: Facts) -> str:
    if facts.epsilon is None:
        return "Not counted: no account is kept for trainings without noise, and differences of sums say what changed."
    return "The ledger composes all trainings of the account, and refuses what exceeds its limit, where one is set."


def _several(facts: Facts) -> str:
    several = facts.privacy.get("max_clients_per_user") or 1
    if facts.epsilon is None:
        return "Nothing is promised to anybody."
    return f"Bounds count a person at {several} client{'' if several == 1 else 's'}; who is at more is covered less."


def _suggestions(facts: Facts) -> str:
    covered = "covered by epsilon" if facts.epsilon is not None else "not covered by anything"
    return f"What the model learned from others is {covered}; what an item means is not known to the software."


def _folder(facts: Facts) -> str:
    if facts.raw or (facts.simulation and facts.epsilon is None):
        return (
            "The folder of this run holds sums, and figures of single clients, without noise: handle it like the logs."
        )
    return "What the folder holds of people is noised; the logs themselves are elsewhere, and as they were."


def _erasure(facts: Facts) -> str:
    until = f"; until then epsilon {figure(facts.epsilon)} bounds what it says" if facts.epsilon is not None else ""
    return f"The model is replaced by the next training, which leaves the person out{until}."


def _fairness(facts: Facts) -> str:
    measured = "by client, not by groups of people" if facts.result.get("per_client") and not facts.devices else "not"
    return f"Quality was measured {measured}. Popular items are shown more, and so bought more."
