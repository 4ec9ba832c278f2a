"""What several documents say alike: blanks that only people can fill, counts, categories of data, the account."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from coterie.privacy.ledger_statement import RunSpent
from coterie.report import reading
from coterie.report.documents.facts import Facts, certainty
from coterie.report.documents.words import NOT_STATED, Blank, Code, Field, Section, Table, Text, listed, prose, say

CONTROLLER = Blank("controller: name and contact")
REPRESENTATIVE = Blank("representative in the Union, if any: name and contact")
DPO = Blank("data protection officer, if any: name and contact")
LEGAL_BASIS = Blank("legal basis, such as Article 6(1)(f) with the legitimate interest, or consent")
PURPOSE = Blank("purpose in your own words, such as: suggest what fits the basket in our web shop")
RECIPIENTS = Blank("other recipients, processors such as a hosting company among them")
TRANSFERS = Blank("third countries or international organisations that receive any of it, or: none")
SAFEGUARDS = Blank("safeguards of such transfers, such as standard contractual clauses")
KEEP_LOGS = Blank("how long logs of what people did are kept, and why so long")
KEEP_RUNS = Blank("how long run folders and models are kept")
ORGANISATION = Blank("organisational measures: who may read logs and run folders, training, contracts")

ROLES: Mapping[str, str] = MappingProxyType({
    "user": "who it was, by an id such as a customer number",
    "item": "what was bought, rated or looked at",
    "time": "when",
    "value": "how many of it, or how it was rated",
    "basket": "what was taken together: the order or receipt",
    "client": "at which shop, site or organisation",
})  # fmt: skip
"""What each column of a log says about a person."""
_OPTIONAL = ("time", "value", "basket", "client")
MOST_NAMES = 50


def about(facts: Facts) -> dict[str, str]:
    """What a document was made from, for its head."""
    run = facts.result.get("run")
    found = {
        "model": facts.model,
        "run": None if run is None else str(run).rstrip("/").rpartition("/")[2],
        "scope": facts.result.get("scope"),
        "run signed on": facts.finished,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def fact(key: str, label: str, value: Any, text: Text | str | None = None, source: str = "") -> Field:
    """A field whose value is known, or is said not to be stated; `text` is how people read the value."""
    if value is None:
        return Field(key, label, NOT_STATED)
    shown = text if text is not None else (f"{value:,}" if isinstance(value, int | float) else str(value))
    return Field(key, label, (shown,) if isinstance(shown, str) else shown, value, source)


def ask(key: str, label: str, blank: Blank) -> Field:
    """A field that a person must fill in."""
    return Field(key, label, (blank,))


def counted(facts: Facts) -> tuple[Field, ...]:
    """How much was trained on. Under metrics that are paid for these counts are noised sums, or are not shown."""
    data, noised = facts.data, facts.result.get("counts") or {}
    fields = []
    for name, label in (("users", "people"), ("baskets", "baskets")):
        noise = reading.known(noised.get(f"{name}_noise"))
        if noise is not None:
            text = f"about {noised[name]:,.0f}, a noised count (standard deviation {noise:,.0f})"
            fields.append(fact(name, label, noised[name], text))
        else:
            fields.append(fact(name, label, data.get(name)))
    named = {"guests": "guests' baskets", "interactions": "interactions", "items": "items", "clients": "clients"}
    return (*fields, *(fact(name, label, data.get(name)) for name, label in named.items()))


def categories(facts: Facts) -> Table:
    """The categories of personal data: what the columns of the logs say about people."""
    columns, baskets = facts.columns, facts.data.get("baskets")
    rows = []
    for role, meaning in ROLES.items():
        column: Text = (Code(columns[role]),) if role in columns else (f"a column called {role}",)
        if role not in columns and role in _OPTIONAL and not (role == "basket" and baskets):
            column = (f"a column called {role}, where the log has one",)
        rows.append(((meaning,), column if facts.config else NOT_STATED))
    if (facts.config.get("data") or {}).get("users"):
        rows.append((("attributes of people, from a further file",), NOT_STATED))
    return Table(
        "What the logs say about a person, as far as this training read them.", ("what", "column"), tuple(rows)
    )


def purposes(facts: Facts) -> Text:
    """What the processing is for, as far as software knows."""
    return say(
        "Train a recommender ({model}) on what people bought, rated or looked at, in order to suggest items: what "
        "completes a basket, what is similar, what a person may want next. {purpose}.",
        model=Code(str(facts.model)) if facts.model else "model not stated",
        purpose=PURPOSE,
    )


def subjects(facts: Facts) -> Text:
    """Whose data these are."""
    n = facts.data.get("users")
    known = f"{n:,} people" if n is not None else "People"
    guests = facts.data.get("guests")
    also = f", and whoever stands behind {guests:,} baskets of guests without an id" if guests else ""
    return say(
        "{known} whose actions are in the logs: customers, members or users of the service{also}. {who}.",
        known=known,
        also=also,
        who=Blank("groups of people, and whether children or employees are among them"),
    )


def named_parties(facts: Facts) -> Text:
    """The organisations that train together, as far as they are named."""
    if facts.devices:
        return prose(
            f"Every client is one person's device ({reading.count(facts.data.get('clients'))} of them): no other "
            "organisation takes part in the training.",
        )
    if not facts.parties:
        n = facts.n_parties
        return NOT_STATED if n is None else say("{n} clients, not named: {who}", n=n, who=Blank("names of the parties"))
    shown = listed(facts.parties[:MOST_NAMES])
    more = len(facts.parties) - MOST_NAMES
    return (*shown, f" and {more:,} more") if more > 0 else shown


def budget(facts: Facts, key: str = "budget", title: str = "What privacy was spent: the account") -> Section:
    """The account that paid for the run: what was spent, of which limit, and what remains."""
    if facts.account_name is None:
        why = "Nothing was charged to an account: this run promises no differential privacy, so there is no budget."
        if facts.epsilon is not None:
            why = "This run states an epsilon, and no account: who keeps the books is not stated here."
        return Section(key, title, text=((why,),))
    return Section(key, title, fields=_of_ledger(facts) if facts.account else _of_run(facts))


def figure(value: float | None, none: str = "no limit") -> str:
    """An epsilon for people.

    >>> figure(4.0), figure(None)
    ('4', 'no limit')
    """
    return none if value is None else f"{value:.4g}"


def odds(epsilon: float) -> str:
    """What an epsilon means for one person, in a sentence."""
    return (
        f"Somebody who holds it for as likely as not that a person's data were used can become at most "
        f"{_percent(certainty(epsilon))} sure from what is released, whatever else they know (leaving delta aside)."
    )


def _percent(share: float) -> str:
    """A share below 1, never rounded up to certainty.

    >>> _percent(0.731), _percent(0.99991)
    ('73 %', '99.99 %')
    """
    return f"{100 * share:.0f} %" if share < 0.985 else f"{min(100 * share, 99.99):.2f} %"


def _of_ledger(facts: Facts) -> tuple[Field, ...]:
    """The account as the ledger has it now."""
    now = facts.account
    if now is None:
        return ()
    account, source = now.account, f"ledger, asked on {facts.on.isoformat()}"
    own = facts.own_spending
    fields = [
        fact("account", "account", account.name, (Code(account.name),), source),
        fact("delta", "delta at which the account counts", account.delta, f"{account.delta:.3g}"),
        fact("epsilon_spent", "epsilon spent, over all runs", now.spent, figure(now.spent)),
        fact("epsilon_reserved", "epsilon spent or reserved", now.counted, figure(now.counted)),
        Field("epsilon_limit", "limit", (figure(account.limit),), account.limit),
        Field("epsilon_remaining", "remaining", (figure(now.remaining),), now.remaining),
        fact("runs", "runs that have spent from it", len(now.runs)),
        fact("this_run", "this run by itself", None if own is None else own.epsilon, _own(own)),
    ]
    if account.period_days is not None:
        span = f"{account.period_days:g} days"
        fields += [
            fact("period_spent", f"epsilon spent in the last {span}", now.period_spent, figure(now.period_spent)),
            Field("period_limit", f"limit for any {span}", (figure(account.period_limit),), account.period_limit),
            Field("period_remaining", "remaining of it", (figure(now.period_remaining),), now.period_remaining),
        ]
    return tuple(fields)


def _own(spent: RunSpent | None) -> str | None:
    if spent is None:
        return None
    return f"epsilon {figure(spent.epsilon)} in {spent.charges:,} charged release{'' if spent.charges == 1 else 's'}"


def _of_run(facts: Facts) -> tuple[Field, ...]:
    """The account as the run itself recorded it when it ended."""
    account = facts.privacy.get("account") or {}
    spent, source = reading.known(account.get("epsilon")), "the run's own record, as it ended"
    limit, remaining = reading.known(account.get("limit")), reading.known(account.get("remaining"))
    return (
        fact("account", "account", account.get("name"), (Code(str(account.get("name"))),), source),
        fact("epsilon_spent", "epsilon spent, over all runs until then", spent, figure(spent)),
        Field("epsilon_limit", "limit", (figure(limit),), limit),
        Field("epsilon_remaining", "remaining", (figure(remaining),), remaining),
    )
