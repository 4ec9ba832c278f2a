"""What makes promises of differential privacy hollow, and how a run stands to each."""

from __future__ import annotations

from coterie.report.documents.common import figure
from coterie.report.documents.facts import Facts, certainty
from coterie.report.documents.words import NOT_STATED, Strong, Table, Text, prose

SURE = 0.95
"""A certainty above which an epsilon promises little by itself."""
_ANONYMOUS: Text = (
    "Whether this is personal data is a question of law and of what else is known; this card does not answer it.",
)


def hazards(facts: Facts) -> Table:
    """One row a hazard: what it is, and what this run has to say to it."""
    rows = (
        ("The number is too large to mean much", _large(facts)),
        ("The unit is an action, not a person", _unit(facts)),
        ("A person is in it several times", _several(facts)),
        ("Delta is large enough to give people away whole", _delta(facts)),
        ("Releases are counted apart, although they add up", _composition(facts)),
        ("Something leaves that nobody charged", _raw(facts)),
        ("The data decided something on the way", _decisions(facts)),
        ("Noise can be taken off again", _noise(facts)),
        ("Being in the data is itself the secret", _membership(facts)),
        ("It is taken for anonymous data", _ANONYMOUS),
    )
    return Table(
        "How this run stands to each of them.", ("hazard", "this run"), tuple(((name,), text) for name, text in rows)
    )


def _large(facts: Facts) -> Text:
    if not facts.privacy:
        return NOT_STATED
    if facts.epsilon is None:
        return (Strong("There is no number:"), " no differential privacy is promised.")
    sure = certainty(facts.epsilon)
    if sure > SURE:
        return prose(
            Strong(f"Epsilon {figure(facts.epsilon)} is large."),
            " As a worst case it promises little; what attacks really achieve is for an audit to say "
            "(coterie audit), which proves nothing about the worst case.",
        )
    return (f"Epsilon {figure(facts.epsilon)}: even odds become {100 * sure:.0f} % at most.",)


def _unit(facts: Facts) -> Text:
    if facts.privacy.get("unit") is None:
        return NOT_STATED
    return ("No: everything that a person did at a client is covered together.",)


def _several(facts: Facts) -> Text:
    if facts.epsilon is None:
        return NOT_STATED if not facts.privacy else ("Nothing is promised to anybody.",)
    several = facts.privacy.get("max_clients_per_user") or 1
    if several == 1 and (facts.n_parties or 0) > 1:
        return prose(
            Strong("Possible."),
            " The promise is per client: who is a customer of several is covered at each, and for all of them together "
            "by a larger epsilon (max_clients_per_user).",
        )
    return (f"Bounds count a person at up to {several} client{'' if several == 1 else 's'}; two ids make two people.",)


def _delta(facts: Facts) -> Text:
    delta, most = facts.privacy.get("delta"), facts.privacy.get("max_users")
    if facts.epsilon is None or delta is None:
        return NOT_STATED if not facts.privacy else ("There is no delta.",)
    bound = "" if most is None else f", against at most {most:,} people: {float(delta) * most:.2g} people expected"
    return (f"Delta is {figure(float(delta))}{bound}.",)


def _composition(facts: Facts) -> Text:
    if facts.account_name is None:
        return ("No account is kept.",) if facts.privacy else NOT_STATED
    return ("A ledger composes all releases of the account; other accounts on the same people it does not know of.",)


def _raw(facts: Facts) -> Text:
    if not facts.privacy:
        return NOT_STATED
    if facts.epsilon is None:
        return ("Everything that leaves.",)
    if not facts.raw:
        return ("No: all that left was charged.",)
    return (Strong("Yes:"), f" {', '.join(facts.raw)}, shown because this is a simulation.")


def _decisions(facts: Facts) -> Text:
    if facts.epsilon is None:
        return NOT_STATED if not facts.privacy else ("Cleaning, splitting and tuning looked at the logs as they are.",)
    if facts.privacy.get("items_from") == "the log":
        return ("The list of items was read from the log. All other choices were fixed before, or charged.",)
    return ("Choices were fixed before, or charged.",)


def _noise(facts: Facts) -> Text:
    if facts.simulated_noise:
        return (Strong("Yes."), " It came from the seed.")
    if facts.epsilon is None:
        return NOT_STATED if not facts.privacy else ("There is none.",)
    if facts.privacy.get("noise") == "distributed":
        most = facts.privacy.get("max_colluding")
        return (f"Each party can take off its own share; {most} colluding with the server were counted on.",)
    if facts.privacy.get("noise") == "local":
        return ("By nobody but the person whose contribution carries it.",)
    return ("By the server, which added it, and not by those who receive the model.",)


def _membership(facts: Facts) -> Text:
    if facts.devices:
        return (Strong("Not covered:"), " every client is one person, so the list of clients says who takes part.")
    if facts.epsilon is None:
        return NOT_STATED if not facts.privacy else ("Not covered.",)
    return ("Covered for people; which organisations take part is known.",)
