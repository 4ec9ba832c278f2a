"""Between what the API speaks (`schemas`) and what the rest of serving does (`words`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

from pydantic_core import to_json

from coterie.serving.schemas import BasketItem, ErasureOut, EventIn, ItemFields, ItemOut, Options
from coterie.serving.words import (
    Answer,
    Ask,
    AskKind,
    Attribute,
    BasketLine,
    ErasureReceipt,
    Event,
    EventLine,
    Item,
    Suggestion,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SHOWN = ("title", "url", "image", "price", "currency", "stock", "language", "group")  # fields that answers carry
_fields = attrgetter(*SHOWN)


def micros(moment: datetime) -> int:
    """Microseconds since 1970 in UTC.

    >>> micros(datetime.fromisoformat("1970-01-01T01:00:00.000002+01:00"))
    2
    """
    return (moment - EPOCH) // MICROSECOND


def moment(micros: int) -> datetime:
    """The time, in UTC, of so many microseconds since 1970."""
    return EPOCH + micros * MICROSECOND


# --- questions and answers -------------------------------------------------------------------------------------------


def basket_of(items: Iterable[BasketItem | str]) -> tuple[BasketLine, ...]:
    """The lines of a basket; plain ids are lines without more."""
    return tuple(
        BasketLine(one)
        if isinstance(one, str)
        else BasketLine(one.item, one.quantity, None if one.time is None else micros(one.time))
        for one in items
    )


def ask_of(
    kind: AskKind,
    options: Options,
    basket: tuple[BasketLine, ...] = (),
    history: Iterable[Sequence[str]] = (),
    *,
    named: Callable[[str], str],
) -> Ask:
    """A question. `named` turns what was sent as a filter or boost into an expression."""
    return Ask(
        kind,
        basket,
        tuple(tuple(one) for one in history),
        options.k,
        frozenset(options.exclude),
        None if options.include_only is None else frozenset(options.include_only),
        None if options.filter is None else named(options.filter),
        None if options.boost is None else named(options.boost),
        options.in_stock,
        options.diversity,
        options.explain,
        options.client,
    )


def answer_json(answer: Answer, version: int, recommendation: str, *, personal: bool, explain: bool) -> bytes:
    """An answer as JSON, as `schemas.Recommendations` describes it; what a shop has not said of an item is left out.

    Made without pydantic's models, and of pieces that are kept: this is asked hundreds of times a second.
    """
    suggestions = answer.suggestions
    scores = to_json([one.score for one in suggestions])[1:-1].split(b",")
    items = [_suggested(one.item, score) for one, score in zip(suggestions, scores, strict=False)]
    if explain:
        items = [b'%b,"because":%b' % (item, _because(one)) for one, item in zip(suggestions, items, strict=True)]
    return _ANSWER % (
        recommendation.encode(),
        b"},".join(items) + b"}" if items else b"",
        to_json(answer.unknown) if answer.unknown else b"[]",
        b"null" if answer.fallback is None else b'"%b"' % answer.fallback.encode(),
        b"true" if personal else b"false",
        version,
    )


_ANSWER = b'{"recommendationId":"%b","items":[%b],"unknown":%b,"fallback":%b,"personal":%b,"version":%d}'


def _suggested(item: Item, score: bytes) -> bytes:
    """A suggestion without its closing brace."""
    before, after = item.shown or _shown(item)
    return before + score + after


def _shown(item: Item) -> tuple[bytes, bytes]:
    """What is said of an item before and after its score; kept with it."""
    said = {name: value for name, value in zip(SHOWN, _fields(item), strict=True) if value is not None}
    if item.attributes:
        said["attributes"] = dict(item.attributes)
    after = b"," + to_json(said)[1:-1] if said else b""
    shown = (b'{"item":%b,"score":' % to_json(item.id), after)
    object.__setattr__(item, "shown", shown)  # the one field of an item that says nothing new
    return shown


def _because(suggestion: Suggestion) -> bytes:
    return to_json([{"term": one.term, "item": one.item, "share": one.share} for one in suggestion.because])


# --- items -----------------------------------------------------------------------------------------------------------


def item_of(id: str, fields: ItemFields, now: int) -> Item:
    """The item that a shop puts."""
    said = {name: getattr(fields, name) for name in SHOWN}
    return Item(id, **said, attributes=_attributes(fields), updated_at=now)


def patch_of(fields: ItemFields) -> Mapping[str, Any]:
    """What a patch changes: the fields that were sent; None clears one."""
    sent = {name: getattr(fields, name) for name in SHOWN if name in fields.model_fields_set}
    return sent | ({"attributes": _attributes(fields)} if "attributes" in fields.model_fields_set else {})


def item_out(item: Item, *, in_model: bool) -> ItemOut:
    """An item as it is shown to the shop."""
    return ItemOut(
        id=item.id,
        **{name: getattr(item, name) for name in SHOWN},
        attributes={name: list(v) if isinstance(v, tuple) else v for name, v in item.attributes.items()},
        updated_at=moment(item.updated_at),
        in_model=in_model,
    )


def _attributes(fields: ItemFields) -> dict[str, Attribute]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.attributes.items()}


# --- events and people -----------------------------------------------------------------------------------------------


def event_of(event: EventIn) -> Event:
    """What happened. Items of an impression that say no position were shown in the order in which they are listed."""
    if event.items is None:
        lines: tuple[EventLine, ...] = (EventLine(event.item or "", event.quantity, None, event.position),)
    else:
        shown = event.type == "impression"
        lines = tuple(
            EventLine(one.item, one.quantity, one.price, at if shown and one.position is None else one.position)
            for at, one in enumerate(event.items, 1)
        )
    return Event(
        event.event_id,
        event.type,
        micros(event.time),
        lines,
        event.user,
        event.basket,
        event.recommendation_id,
        event.value,
    )


def erasure_out(receipt: ErasureReceipt) -> ErasureOut:
    """A receipt as whoever asked for the erasure gets it."""
    return ErasureOut(
        receipt=receipt.id,
        user=receipt.user,
        salt=receipt.salt,
        proof=receipt.proof,
        time=moment(receipt.time),
        erased=dict(receipt.erased),
        note=receipt.note,
    )
