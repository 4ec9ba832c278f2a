"""What the API takes and gives, as pydantic models: names in camelCase, times in ISO 8601 with their offset.

Routes turn these into `coterie.serving.words` and back; nothing else knows them.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from coterie.serving.words import EventKind, Fallback

# Ids come from the shop: any text that can be shown, stored and put into a URL; no control characters.
Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Expression = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
NOT_NUL = r"^[^\x00]*$"  # no database keeps NUL in a text
Text = Annotated[str, StringConstraints(max_length=1000, pattern=NOT_NUL)]
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _moment(value: object) -> datetime:
    """A time as RFC 3339 writes it. Seconds since 1970 are refused: whose clock would they be of?"""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    if not isinstance(value, str) or RFC3339.fullmatch(value) is None:
        raise ValueError("should be a time with its offset, such as 2026-05-01T18:30:00+02:00")
    return datetime.fromisoformat(value.upper())


def _whole_number(value: object) -> object:
    """JSON knows one kind of number: 3.0 is as whole as 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


K = Annotated[int, Field(ge=1, le=1000), BeforeValidator(_whole_number)]
Stock = Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(_whole_number)]
Position = Annotated[int, Field(ge=1, le=1000), BeforeValidator(_whole_number)]
Moment = Annotated[datetime, PlainValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]


class Schema(BaseModel):
    """Base: camelCase outside, unknown fields refused by name, no NaN."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", allow_inf_nan=False, frozen=True
    )


# --- questions -------------------------------------------------------------------------------------------------------


class BasketItem(Schema):
    """An item in hand."""

    item: Id
    quantity: float | None = Field(None, gt=0, le=1e9)
    time: Moment | None = None


class Options(Schema):
    """What every question may say about the answer."""

    k: K = Field(10, description="How many suggestions; the deployment may allow fewer.")
    exclude: list[Id] = Field([], max_length=1000, description="Items that must not be suggested.")
    include_only: list[Id] | None = Field(None, max_length=10_000, description="Suggest nothing but these.")
    filter: Expression | None = Field(
        None,
        description="Expression (CEL) over item fields that must hold, such as price < 20.0 && "
        "'vegan' in tags; with a "
        "publishable key: the name of one that the deployment defines.",
    )
    boost: Expression | None = Field(
        None, description="Expression that gives a factor (0 to 100) for the score, such as margin > 0.3 ? 1.5 : 1.0."
    )
    in_stock: bool = Field(True, description="Leave out what is out of stock.")
    diversity: float = Field(
        0.0, ge=0, le=1, description="0: best first. Towards 1: unlike what is suggested before it."
    )
    explain: bool = Field(False, description="Say which items led to each suggestion.")
    client: Id | None = Field(None, description="Answer as this client of the federation: its catalogue, its mix.")


class BasketQuestion(Options):
    """What completes this basket?"""

    items: list[BasketItem | Id] = Field([], max_length=10_000, description="The basket, oldest first; ids will do.")


class UserQuestion(Options):
    """What would this user take next, from the history that is stored here?"""

    user: Id
    items: list[BasketItem | Id] = Field([], max_length=10_000, description="What is in the user's basket now.")
    user_token: str | None = Field(None, max_length=500, description="Needed with a publishable key.")


class SimilarQuestion(Options):
    """What is like this item?"""

    item: Id


class PopularQuestion(Options):
    """What do most people take?"""


# --- answers ---------------------------------------------------------------------------------------------------------


class ReasonOut(Schema):
    """A share of what speaks for a suggestion."""

    term: str
    item: str | None
    share: float


class SuggestionOut(Schema):
    """One suggestion with what the shop says of it."""

    item: str
    score: float
    title: str | None = None
    url: str | None = None
    image: str | None = None
    price: float | None = None
    currency: str | None = None
    stock: int | None = None
    language: str | None = None
    group: str | None = None
    attributes: dict[str, Any] = {}
    because: list[ReasonOut] | None = None


class Recommendations(Schema):
    """An answer, best first."""

    recommendation_id: str = Field(description="To be sent with the events that follow from this answer.")
    items: list[SuggestionOut]
    unknown: list[str] = Field(description="Ids of the question that are not known; they were ignored.")
    fallback: Fallback | None = Field(description="Why the answer is not personal to the question; null where it is.")
    personal: bool = Field(description="Whether what is stored of a user entered the answer.")
    version: int = Field(description="Version of the model that answered.")


# --- items -----------------------------------------------------------------------------------------------------------

AttributeValue = str | bool | float | list[str]


class ItemFields(Schema):
    """What a shop says of an item; every field may be left out."""

    title: Text | None = None
    url: Text | None = Field(None, pattern=r"^(https?://|/)[^\x00-\x20]*$", description="http(s) address, or a path.")
    image: Text | None = Field(None, pattern=r"^(https?://|/)[^\x00-\x20]*$")
    price: float | None = Field(None, ge=0, le=1e12)
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = None
    stock: Stock | None = Field(None, description="null: not counted. 0: gone, and not suggested.")
    language: Annotated[str, StringConstraints(max_length=35, pattern=r"^[A-Za-z0-9-]+$")] | None = None
    group: Id | None = Field(
        None, description="Variants of one article share it; an answer has at most one of a group."
    )
    attributes: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")], AttributeValue] = (
        Field({}, max_length=50, json_schema_extra={"additionalProperties": False})
    )


class ItemIn(ItemFields):
    """An item of a bulk request."""

    id: Id


class ItemOut(ItemFields):
    """An item as it is stored."""

    id: str
    updated_at: datetime
    in_model: bool = Field(description="Whether the served model knows it; what it does not know is never suggested.")


class ItemsIn(Schema):
    """Items to replace (`put`), to change (`patch`: what is left out stays) and to delete, in one transaction."""

    put: list[ItemIn] = []
    patch: list[ItemIn] = []
    delete: list[Id] = []


class ItemsPage(Schema):
    """Items in the order of their ids."""

    items: list[ItemOut]
    next: str | None = Field(description="What `after` has to be for the items that follow; null: there are none.")


class ItemsDone(Schema):
    """How many were written."""

    put: int
    patched: int
    deleted: int
    missing: list[str] = Field(description="Ids to patch or delete that were not there.")


# --- events ----------------------------------------------------------------------------------------------------------


class EventLineIn(Schema):
    """An item of an event."""

    item: Id
    quantity: float | None = Field(None, gt=0, le=1e9)
    price: float | None = Field(None, ge=0, le=1e12)
    position: Position | None = Field(None, description="Place in the list that was shown, from 1.")


def _given(name: str) -> dict[str, Any]:
    """JSON Schema: the field is there, and not null."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


_ONE: dict[str, Any] = {"allOf": [_given("item"), {"not": _given("items")}]}
_SEVERAL: dict[str, Any] = {
    "allOf": [_given("items"), *({"not": _given(name)} for name in ("item", "quantity", "position"))]
}
_RATED: dict[str, Any] = {"allOf": [{"properties": {"type": {"const": "rating"}}}, _given("value")]}
_NOT_RATED: dict[str, Any] = {
    "allOf": [{"properties": {"type": {"not": {"const": "rating"}}}}, {"not": _given("value")}]
}
_WHOLE: dict[str, Any] = {"allOf": [{"oneOf": [_ONE, _SEVERAL]}, {"oneOf": [_RATED, _NOT_RATED]}]}


class EventIn(Schema):
    """Something that happened. Either `item` or `items`; `rating` needs `value`, and nothing else has one."""

    model_config = ConfigDict(json_schema_extra=_WHOLE)

    event_id: Id = Field(description="Makes it idempotent: the same id is stored once.")
    type: EventKind
    time: Moment
    user: Id | None = Field(None, description="Left out for guests.")
    user_token: str | None = Field(None, max_length=500, description="Needed for `user` with a publishable key.")
    item: Id | None = None
    items: list[EventLineIn] | None = Field(None, min_length=1, max_length=1000)
    quantity: float | None = Field(None, gt=0, le=1e9)
    position: Position | None = None
    basket: Id | None = Field(None, description="Order or cart id.")
    recommendation_id: Id | None = Field(None, description="Of the answer that it follows from.")
    value: float | None = Field(None, ge=-1e6, le=1e6, description="The rating.")

    @model_validator(mode="after")
    def _whole(self) -> EventIn:
        if (self.item is None) == (self.items is None):
            raise ValueError("an event has either item or items")
        if self.items is not None and (self.quantity is not None or self.position is not None):
            raise ValueError("quantity and position stand beside each of items")
        if (self.type == "rating") != (self.value is not None):
            raise ValueError("a rating has a value, and nothing else has")
        return self


class EventsIn(Schema):
    """A batch."""

    events: list[EventIn] = Field(min_length=1)


class EventsDone(Schema):
    """What became of the batch; what is stored is on disk."""

    stored: int
    duplicates: int
    declined: int = Field(description="Not kept, because the user has not consented or has objected.")


# --- users -----------------------------------------------------------------------------------------------------------


class ConsentIn(Schema):
    """The user's word."""

    consent: bool


class ConsentOut(Schema):
    """What holds for the user: `recorded` is null where the user has said nothing."""

    user: str
    recorded: bool | None
    stored: bool = Field(description="Whether events of this user are kept and used.")


class TokenOut(Schema):
    """Lets a page speak for one user for a while, with a publishable key."""

    user_token: str
    expires_at: datetime


class ErasureOut(Schema):
    """Receipt of an erasure; keep it: the deployment itself no longer knows whom it was about."""

    receipt: str
    user: str
    salt: str
    proof: str = Field(description="SHA-256 of salt and user id: the deployment keeps this and not the id.")
    time: datetime
    erased: dict[str, int]
    note: str


class UserExport(Schema):
    """Everything that this deployment holds of a user."""

    user: str
    exported_at: datetime
    consent: bool | None
    events: list[dict[str, Any]]
    other: dict[str, Any] = {}


# --- the model -------------------------------------------------------------------------------------------------------


class ModelOut(Schema):
    """A version that answers."""

    version: int
    model: str
    run: str
    fingerprint: str
    signed_at: datetime | None
    loaded_at: datetime
    signer: str | None
    allowed: list[str] = Field(description="What was wrong with it and allowed by name; empty where nothing was.")
    items: int
    share: float = Field(description="Share of the traffic that it answers.")
    privacy: dict[str, Any]
    privacy_card: str = Field(description="The privacy card, as Markdown.")


class ModelsOut(Schema):
    """The versions that answer now, and how."""

    answers: Literal["plain", "browser", "noisy"]
    versions: list[ModelOut]


class Status(Schema):
    """How the service is."""

    status: Literal["alive", "ready"]


class Problem(BaseModel):
    """An error (RFC 9457): what, why, and the remedy. Never a stack trace."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None
