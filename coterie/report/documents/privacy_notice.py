"""A draft of what people are told: GDPR Articles 13 and 14, in words that need no lawyer."""

from __future__ import annotations

from coterie.report import reading
from coterie.report.documents import common
from coterie.report.documents.common import ROLES, about, figure
from coterie.report.documents.facts import Facts, certainty
from coterie.report.documents.words import Blank, Document, Section, Text, prose, say

NAME = Blank("name of your shop or service")
CONTACT = Blank("address, e-mail and telephone")
SIMULATED = Blank(
    "check: this run was a simulation, in which one process held all logs; what follows is true only where each party "
    "computes at home"
)
BASIS = Blank("legal basis; where it is legitimate interest: which")


def made(facts: Facts) -> Document:
    """The notice. Headings name the items of the Articles, so that somebody can check that none is missing."""
    return Document(
        kind="privacy-notice",
        title="How we make suggestions, and what that means for you",
        lead=("A text for a privacy notice. Each heading names the item of GDPR Articles 13 and 14 that it answers.",),
        sections=(
            _who(),
            _what(facts),
            Section("why", "Why, and on what legal basis (13(1)(c), (d); 14(1)(c), 14(2)(b))", text=(_why(),)),
            _together(facts),
            _protected(facts),
            _recipients(),
            _long(),
            _rights(),
            _machine(),
            _must(),
        ),
        on=facts.on,
        about=about(facts),
        draft=True,
    )


def _who() -> Section:
    return Section(
        "who",
        "Who we are (13(1)(a), (b); 14(1)(a), (b))",
        text=(
            say("We are {name}. You can reach us at {contact}.", name=NAME, contact=CONTACT),
            say(
                "Our data protection officer: {dpo}. Our representative: {rep}.",
                dpo=common.DPO,
                rep=common.REPRESENTATIVE,
            ),
        ),
    )


def _what(facts: Facts) -> Section:
    columns = facts.columns
    used = [meaning for role, meaning in ROLES.items() if role in ("user", "item") or role in columns or not columns]
    return Section(
        "what",
        "What we use (14(1)(d))",
        text=(("From what you bought, rated or looked at with us we use:",),),
        points=(
            *((meaning,) for meaning in used),
            say("but not: {rest}", rest=Blank("such as names, addresses, payment data: check your log")),
        ),
    )


def _why() -> Text:
    return say(
        "We use it to learn what goes well together, so that we can suggest items to you and to others. Our legal "
        "basis is {basis}.",
        basis=BASIS,
    )


def _together(facts: Facts) -> Section:
    checked: tuple[Text, ...] = ()
    if facts.simulation:
        checked = ((SIMULATED,),)
    return Section(
        "together",
        "With whom we learn, and what leaves us (13(1)(e); 14(1)(e))",
        text=(*checked, _on_devices() if facts.devices else _with_others(facts)),
    )


def _on_devices() -> Text:
    return prose(
        "Learning takes place on your own device. It computes a few sums from what you did and sends those; your list "
        "itself stays with you."
    )


def _with_others(facts: Facts) -> Text:
    how = {
        "secure": "What we send is masked, so that only the sum over all of us can be read.",
        "plain": "Whoever adds the sums up sees ours; it never sees your list.",
    }
    return say(
        "We learn together with {others}. Nobody gets your list from us. We compute sums over all our customers (such "
        "as: how often two items were bought together) and send only those. {how}",
        others=_others(facts),
        how=how.get(str(facts.privacy.get("aggregation")), ""),
    )


def _others(facts: Facts) -> Text:
    n = facts.n_parties
    who = Blank("names of the others, or a link to the list")
    return say("{n} others: {who}", n=n - 1, who=who) if n is not None and n > 1 else (who,)


def _protected(facts: Facts) -> Section:
    if facts.epsilon is None:
        told: tuple[Text, ...] = (
            prose(
                "The sums are exact. Somebody who has them, or the model made from them, may be able to find out "
                "something about a single person, mostly where an item is rare.",
            ),
        )
    else:
        sure = 100 * certainty(facts.epsilon)
        told = (
            prose(
                "We add random noise to the sums. What comes out is nearly the same whether you are in it or not. "
                f"How nearly is measured by a number called epsilon; ours is {figure(facts.epsilon)}.",
            ),
            prose(
                "In other words: somebody who guesses by a coin whether your data were used is right in 50 of 100 "
                "cases. "
                f"With all that we release they can come to {min(sure, 99.99):.4g} of 100 at most, leaving aside a "
                f"chance of {figure(reading.known(facts.privacy.get('delta')), 'a size that is not stated')}.",
            ),
            *_account(facts),
        )
    return Section("protected", "How you are protected", text=told)


def _account(facts: Facts) -> tuple[Text, ...]:
    """Earlier trainings add up: what is said to people is the account, where it is known."""
    recorded = facts.privacy.get("account") or {}
    spent = facts.account.spent if facts.account else reading.known(recorded.get("epsilon"))
    limit = facts.account.account.limit if facts.account else reading.known(recorded.get("limit"))
    if spent is None:
        return ()
    most = f" We do not let it grow beyond {figure(limit)}." if limit is not None else ""
    return ((f"Every training adds to this. All of ours together have come to {figure(spent)} so far.{most}",),)


def _recipients() -> Section:
    return Section(
        "recipients",
        "Who else gets something, and other countries (13(1)(e), (f); 14(1)(e), (f))",
        text=(
            say("{recipients}.", recipients=common.RECIPIENTS),
            say("{transfers}. {safeguards}.", transfers=common.TRANSFERS, safeguards=common.SAFEGUARDS),
        ),
    )


def _long() -> Section:
    return Section(
        "long",
        "How long we keep it (13(2)(a); 14(2)(a))",
        text=(
            say("{logs}. {runs}.", logs=common.KEEP_LOGS, runs=common.KEEP_RUNS),
            prose(
                "If we delete what you did, the next model learns without it. The model that is in use until then may "
                "still have learned from it.",
            ),
        ),
    )


def _rights() -> Section:
    return Section(
        "rights",
        "Your rights (13(2)(b) to (d); 14(2)(c) to (e))",
        points=(
            ("You may ask what we have about you, and get a copy.",),
            ("You may have it corrected, erased or restricted, and take it with you.",),
            prose(
                "You may object, at any time: we then make no suggestions from what you did, and do not learn from it "
                "in the next training.",
            ),
            ("Where we ask for your consent you may take it back at any time; what was done until then stays lawful.",),
            say("You may complain to a supervisory authority, such as {authority}.", authority=Blank("authority")),
            say("Write to {contact}. Where others learn with us you may write to any of us.", contact=CONTACT),
        ),
    )


def _machine() -> Section:
    return Section(
        "machine",
        "Whether a machine decides (13(2)(f); 14(2)(g))",
        text=(
            prose(
                "A program chooses what is suggested: it scores items by how often they went together with what is in "
                "your basket, or with what you had before. It decides nothing else about you: no price, no contract, "
                "no access.",
            ),
        ),
    )


def _must() -> Section:
    return Section(
        "must",
        "Whether you have to, and where the data come from (13(2)(e); 14(2)(f))",
        text=(
            ("You do not have to give us anything for suggestions. Without it you see what is popular.",),
            say("What we use comes from {source}.", source=Blank("your own orders with us, or from where else")),
        ),
    )
