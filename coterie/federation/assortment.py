"""An assortment: which items an organisation carries, by its own ids, and how others may know them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeAlias

import polars as pl

from coterie.data.catalogue import Catalogue
from coterie.errors import DataError, PlanError, closest
from coterie.federation.identifiers import IDENTIFIER_COLUMNS, standard_identifier

Source: TypeAlias = Literal["file", "log"]
ITEM, TITLE = "item", "title"


@dataclass(frozen=True)
class Assortment:
    """What one organisation carries. Nothing of it leaves but what the mode of an agreement asks for.

    `items` are its own ids, ascending; `texts` has one row per item at most (``item``, ``title``, attributes).
    `identifiers`, aligned with `items`, is how others know them (GTIN or ISBN as 14 digits, None where an item has
    none); without any, items are known by their own ids. `attributes` names the columns of `texts` that may leave
    beside the title: an items file may hold purchase prices. `source` says whether the list was taken from a log: who
    bought what then decides what is in it, which no private training may rest on.
    """

    items: tuple[str, ...]
    texts: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={ITEM: pl.String, TITLE: pl.String}))
    identifiers: tuple[str | None, ...] | None = None
    attributes: tuple[str, ...] = ()
    source: Source = "file"

    def __post_init__(self) -> None:
        if list(self.items) != sorted(set(self.items)):
            raise DataError("an assortment's items must be distinct and in ascending order")
        if self.identifiers is not None and len(self.identifiers) != len(self.items):
            raise DataError(
                f"an assortment of {len(self.items)} items has {len(self.identifiers)} identifiers; one for each is due"
            )
        for name in self.attributes:
            if name in (ITEM, TITLE) or name not in self.texts.columns:
                known = [column for column in self.texts.columns if column not in (ITEM, TITLE)]
                raise DataError(
                    f"attribute '{name}' is no further column of the items; they have "
                    f"{', '.join(known) or 'none'}{closest(name, known)}"
                )

    @classmethod
    def listed(cls, texts: pl.DataFrame, identifier: str | None = None, attributes: tuple[str, ...] = ()) -> Assortment:
        """The assortment of an items file (`coterie.data.sidefiles.read_items`).

        `identifier` names the column of `texts` with the GTIN or ISBN (``item``: the ids are such); cells that are none
        leave their items without. `attributes` names further columns that may leave.

        Raises:
            DataError: a column is missing, or that of identifiers holds not a single valid one.
        """
        catalogue = Catalogue.listed(texts)
        items, found = catalogue.items, None
        if identifier is not None:
            if identifier not in texts.columns:
                raise DataError(
                    f"the items have no column '{identifier}'; they have {', '.join(texts.columns)}"
                    f"{closest(identifier, texts.columns)}"
                )
            found = _identifiers(items, catalogue.texts, identifier)
            if not any(found):
                raise DataError(
                    f"column '{identifier}' of the items holds no valid GTIN or ISBN: each needs its check digit; name "
                    "the column that holds them"
                )
        return cls(items, catalogue.texts, found, attributes)

    @classmethod
    def of(cls, catalogue: Catalogue) -> Assortment:
        """The items of a log (`Catalogue.of`): allowed where the plan has no noise."""
        return cls(catalogue.items, catalogue.texts, source="log")

    def __len__(self) -> int:
        return len(self.items)

    def identified(self) -> Assortment:
        """The same with identifiers: those it has, else those of a column called as such, else ids that are such.

        Raises:
            DataError: there are none; says which column would be found.
        """
        found = self.standard
        if not any(found):
            raise DataError(
                f"none of the {len(self.items)} items has a valid GTIN or ISBN, by which others could know it; they "
                f"are looked for in column '{self._column}': add a column called {IDENTIFIER_COLUMNS[0]} or "
                f"{IDENTIFIER_COLUMNS[-1]} to the items file, or correct it"
            )
        return replace(self, identifiers=found)

    @cached_property
    def standard(self) -> tuple[str | None, ...]:
        """Each item's identifier, wherever it stands: as given, in a column called as such, or as the id; else None."""
        if self.identifiers is not None:
            return self.identifiers
        return _identifiers(self.items, self.texts, self._column)

    def refuse_log(self) -> None:
        """Refuse a list that was taken from a log.

        Raises:
            PlanError: it was.
        """
        if self.source == "log":
            raise PlanError(
                "under a plan with noise the list of items must not come from the log, because one customer's purchase "
                "would show in it; name an items file ([data] items)"
            )

    @cached_property
    def shared(self) -> tuple[str | None, ...]:
        """How others know each item: its identifier, or its own id where the assortment has no identifiers."""
        return self.items if self.identifiers is None else self.identifiers

    @cached_property
    def first(self) -> dict[str, str]:
        """By shared id (ascending), the first own item that is known by it: two own ids may mean one product."""
        found = {name: item for name, item in zip(self.shared[::-1], self.items[::-1], strict=True) if name is not None}
        return dict(sorted(found.items()))

    @property
    def _column(self) -> str:
        """The column of identifiers: the first that is called as such, else that of ids."""
        folded = {column.casefold(): column for column in self.texts.columns}
        return next((folded[name] for name in IDENTIFIER_COLUMNS if name in folded), ITEM)


def _identifiers(items: tuple[str, ...], texts: pl.DataFrame, column: str) -> tuple[str | None, ...]:
    """The standard form of each item's cell in `column` of `texts`, None where it has none."""
    if column == ITEM:
        return tuple(standard_identifier(item) for item in items)
    cells = texts.select(pl.col(ITEM), pl.col(column).cast(pl.String).alias("cell"))
    found = {item: standard_identifier(cell) for item, cell in cells.iter_rows() if cell is not None}
    return tuple(found.get(item) for item in items)
