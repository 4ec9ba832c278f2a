"""What the drafts say alike about how a training works: the way of the data, and who has what afterwards."""

from __future__ import annotations

from coterie.report.documents.facts import Facts
from coterie.report.documents.words import Text, marked

FLOW: tuple[Text, ...] = (
    marked("**Read**: each party reads its own log; rows are cleaned and held-out rows set aside."),
    marked(
        "**Sum**: from its rows each party computes sums over its users, such as how often items were taken together."
    ),
    marked("**Combine**: the sums of all parties are added up; from the total the model is computed."),
    marked("**Return**: every party receives the model, and may mix it with one of its own rows, at home."),
    marked("**Answer**: the model scores items for a basket or a history that somebody has at that moment."),
)


def received(facts: Facts) -> tuple[Text, ...]:
    """Who gets something that was made from personal data."""
    if facts.card is None:
        return (("Who received what is not stated by the run.",),)
    return tuple(marked(line) for line in facts.card.sees)
