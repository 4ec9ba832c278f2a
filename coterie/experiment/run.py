"""A run: one training, in memory or on disk, ready to recommend."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from coterie import __version__
from coterie.data.catalogue import Catalogue
from coterie.errors import ModelError, RunError, closest
from coterie.evaluation.ranking import top_k
from coterie.experiment.request import require_empty
from coterie.experiment.signing import Examined, examine_folder, sign_folder
from coterie.federation.checkpoint import load_state, save_state
from coterie.files import read_arrays, read_bytes, write_arrays, write_bytes, write_text
from coterie.models.base import Model
from coterie.models.registry import build
from coterie.types import History, Items, Query, Ragged, Scores, State

T = TypeVar("T")
BLOCK = 1024
MODEL_FILE, CATALOGUE_FILE, RESULT_FILE = "model.safetensors", "catalogue.parquet", "result.json"


@dataclass(frozen=True)
class Recommendation:
    """One suggestion, and why: `because` lists (term, cart item or None, share), largest first.

    Shares are of everything that speaks for the item and sum to 1; what speaks against it lowers its score and is not
    listed.
    """

    item: str
    title: str
    score: float
    because: tuple[tuple[str, str | None, float], ...] = ()


@dataclass(frozen=True)
class ClientModel:
    """What one client serves: a state on its own catalogue `items` (positions in the run's)."""

    items: Items
    state: State


class StoredClients(Mapping[str, ClientModel]):
    """What each client keeps, one file a client in the run folder, read when asked for."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self._place = {name: at for at, name in enumerate(names)}

    def __getitem__(self, name: str) -> ClientModel:
        arrays = read_arrays(self._path(name))
        if "items" not in arrays:
            raise RunError(f"{self.folder}: the model of a client is missing; restore the run folder or train again")
        state = {key.removeprefix("state."): array for key, array in arrays.items() if key.startswith("state.")}
        return ClientModel(arrays["items"], State(1, state))

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)

    def write(self, name: str, model: ClientModel) -> None:
        """Keep a client's model; durable when this returns."""
        state = {f"state.{key}": array for key, array in model.state.arrays.items()}
        write_arrays(self._path(name), {"items": model.items, **state})

    def _path(self, name: str) -> Path:
        return self.folder / "clients" / f"{self._place[name]:05d}.safetensors"


@dataclass
class Run:
    """A trained model with its catalogue and what was measured.

    `clients` maps a client's name to what it serves itself (the mix); clients that are not listed serve the federated
    model. `result` is what ``coterie train --json`` prints. `path` is the run folder, None for a run in memory.
    """

    model: Model
    state: State
    catalogue: Catalogue
    result: dict[str, Any] = field(default_factory=dict)
    clients: Mapping[str, ClientModel] = field(default_factory=dict)
    path: Path | None = None

    @property
    def items(self) -> tuple[str, ...]:
        """Item ids in the order of the columns of `scores`."""
        return self.catalogue.items

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of each scheme; empty where nothing was evaluated."""
        return dict(self.result.get("metrics") or {})

    def resolve(self, basket: Iterable[str], client: str | None = None) -> tuple[list[str], list[str]]:
        """Split a basket into (item ids of the catalogue, what is unknown).

        An id is taken as it is, else without regard to case, else as a title that exactly one item has. With `client`
        its own catalogue decides what is known.
        """
        carried = None if client is None else {self.items[i] for i in self.served(client).items.tolist()}
        known, unknown = list[str](), list[str]()
        for word in basket:
            found = self._find(word)
            if found is None or (carried is not None and found not in carried):
                unknown.append(word)
            else:
                known.append(found)
        return last_places(known), unknown

    def scores(self, histories: Sequence[Sequence[str]]) -> Scores:
        """Scores of all items for each history (cart, or items a user has): float32 [n, items], columns as `items`.

        A history names items in the order in which they were taken, which some models heed. Unknown items are ignored;
        items of the history are scored like any other.
        """
        return self.model.score(self.state, self._asked(histories))

    def rank(self, histories: Sequence[Sequence[str]], k: int = 20) -> list[list[str]]:
        """The k best items for each history, seen items left out: one row of item ids per history.

        An empty history gets the most popular items. Items for which nothing speaks (score 0) come in order of
        popularity, other ties by item id.
        """
        query, ranked, k = self._asked(histories), list[list[str]](), min(k, len(self.items))
        for start in range(0, len(query), BLOCK):
            part = query.slice(start, min(start + BLOCK, len(query)))
            scores = by_popularity_where_unknown(self.model.score(self.state, part), self.state)
            best = top_k(scores, part.cart, None, k)
            ranked += [[self.items[i] for i in row if i >= 0] for row in best]
        return ranked

    def recommend(
        self,
        basket: Sequence[str] = (),
        k: int = 10,
        *,
        history: Sequence[Sequence[str]] | None = None,
        client: str | None = None,
        explain: bool = True,
        values: Sequence[float] | None = None,
    ) -> list[Recommendation]:
        """The k items that best complete a basket.

        Args:
            basket: item ids or titles, in the order in which they were taken; unknown ones are ignored (`resolve` names
                them).
            k: how many.
            history: the user's past baskets, oldest first; stays here.
            client: recommend as this client does: its catalogue, its mix.
            explain: say which items of the cart, and what else, led to each suggestion.
            values: the ratings of the basket's items, for models that learn from ratings; NaN where unknown.

        Raises:
            ModelError: k is below 1, the run does not know the client, or there are not as many values as items.
        """
        if k < 1:
            raise ModelError(f"k must be at least 1, got {k}")
        k = min(k, len(self.items))
        served = self.served(client)
        place = {self.items[i]: at for at, i in enumerate(served.items.tolist())}
        rated = self._rated(basket, values)
        cart = {place[item]: value for item, value in rated.items() if item in place}
        ragged, given = Ragged.of([list(cart)]), np.array(list(cart.values()), np.float32)
        known_values = None if values is None else given
        query = Query(ragged, history_of(history, place), None, client, known_values, _steps(ragged))
        scores = by_popularity_where_unknown(self.model.score(served.state, query), served.state)
        best = top_k(scores, query.cart, None, k)[0]
        return [self._suggestion(served, query, int(i), float(scores[0, i]), explain) for i in best if i >= 0]

    def save(self, folder: str | Path) -> Path:
        """Write a run folder (model, catalogue, what clients keep, result) and sign it; returns the folder.

        Raises:
            ConfigError: the folder exists and is not empty.
        """
        require_empty(Path(folder))
        self.write_model(Path(folder))
        return self.sign(Path(folder))

    def sign(self, folder: Path) -> Path:
        """Write the result beside the model and sign everything in `folder`: the run is finished then."""
        write_text(folder / RESULT_FILE, json.dumps(self.result, indent=2, allow_nan=False) + "\n")
        facts = {"coterie": __version__, "model": self.settings(), "clients": list(self.clients)}
        facts["releasable"] = (self.result.get("privacy") or {}).get("releasable", True)
        facts["signed_at"] = datetime.now(UTC).isoformat()  # of two runs, the one that was signed later is the newer
        sign_folder(folder, facts)
        self.path = folder
        return folder

    def write_model(self, folder: Path) -> None:
        """Write model, catalogue and what each client keeps; no signature yet."""
        save_state(folder / MODEL_FILE, self.state)
        table = self.catalogue.positions.select("item").join(
            self.catalogue.texts, on="item", how="left", maintain_order="left"
        )
        write_bytes(folder / CATALOGUE_FILE, _parquet(table))
        if not isinstance(self.clients, StoredClients) or self.clients.folder != folder:
            stored = StoredClients(folder, list(self.clients))
            for name, model in self.clients.items():
                stored.write(name, model)

    def settings(self) -> dict[str, Any]:
        """Model name and hyper-parameters."""
        return {"name": self.model.name, **self.model.model_dump()}

    def _rated(self, basket: Sequence[str], values: Sequence[float] | None) -> dict[str, float]:
        """The known items of a basket in their order, with their values (NaN without)."""
        if values is None:
            return dict.fromkeys(self.resolve(basket)[0], math.nan)
        if len(values) != len(basket):
            raise ModelError(f"{len(basket)} items need as many values, got {len(values)}")
        of = {item: value for word, value in zip(basket, values, strict=True) for item in self.resolve([word])[0]}
        return {item: of[item] for item in self.resolve(basket)[0]}

    def _suggestion(self, served: ClientModel, query: Query, at: int, score: float, explain: bool) -> Recommendation:
        item = self.items[served.items[at]]
        found = reasons(self.model, served.state, query, at) if explain else []
        shares = tuple(
            (term, None if cause is None else self.items[served.items[cause]], share) for term, cause, share in found
        )
        return Recommendation(item, self.catalogue.title(item), score, shares)

    def served(self, client: str | None) -> ClientModel:
        """What answers a client's questions: its own model where it keeps one; None: the federated one.

        Raises:
            ModelError: the run has no model of this client's own.
        """
        if client is None:
            return ClientModel(np.arange(len(self.items), dtype=np.int32), self.state)
        if client not in self.clients:
            known = closest(client, self.clients) or f"; it keeps models for {len(self.clients)} clients"
            raise ModelError(f"this run has no model of its own for client '{client}'{known}")
        return self.clients[client]

    def _asked(self, histories: Sequence[Sequence[str]]) -> Query:
        """Known, distinct items of each history, as positions, with their order."""
        if isinstance(histories, str) or any(isinstance(one, str) for one in histories):
            raise ModelError('histories must be a list of lists of item ids, such as [["85123A"], []]')
        lists = (last_places(self.catalogue.index(one).tolist()) for one in histories)
        cart = Ragged.of([[i for i in one if i >= 0] for one in lists])
        return Query(cart, step=_steps(cart))

    def _find(self, word: str) -> str | None:
        if self.catalogue.index([word])[0] >= 0:
            return word
        folded = _folded(word)
        same = [item for item in self.items if _folded(item) == folded]
        if not same:
            same = [item for item in self.items if _folded(self.catalogue.title(item)) == folded]
        return same[0] if len(same) == 1 else None


def load(path: str | Path, trust: str | None = None, *, despite: Collection[str] = ()) -> Run:
    """Open a run folder.

    Args:
        path: the folder.
        trust: fingerprint of a signer to trust besides this installation's own key, or "any".
        despite: open it although it is "unsigned" (without a manifest, or by an unknown signer) or "tampered" (another
            signature or other files than were signed). Without a manifest nobody says whose the models of clients are:
            it has none then.

    Raises:
        RunError: the folder is missing, unfinished, truncated, tampered with, or signed by an unknown key.
    """
    folder = Path(path)
    return open_examined(folder, examine_folder(folder, trust, despite=despite).refuse(despite))


def open_examined(folder: Path, examined: Examined) -> Run:
    """Open a run folder whose faults, if it has any, were decided upon.

    Raises:
        RunError: a file is missing, truncated or of another version.
    """
    try:
        result = json.loads(read_bytes(folder / RESULT_FILE))
        table = pl.read_parquet(folder / CATALOGUE_FILE)
        made = examined.manifest or {"model": {"name": result["model"], **result["hyper_parameters"]}, "clients": []}
        model, names = build(made["model"]), list(made["clients"])
    except (KeyError, ValueError, TypeError, OSError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{folder}: written by another version of Coterie ({error}); train again") from None
    catalogue = Catalogue(tuple(table["item"].to_list()), table, by_id=False)
    return Run(model, load_state(folder / MODEL_FILE), catalogue, result, StoredClients(folder, names), folder)


def last_places(taken: Sequence[T]) -> list[T]:
    """Each thing once, where it was taken last."""
    return list(dict.fromkeys(reversed(taken)))[::-1]


def _steps(lists: Ragged) -> Items:
    """How many steps back from the end of its list each entry stands."""
    ends = np.repeat(lists.ptr[1:], np.diff(lists.ptr))
    return (ends - 1 - np.arange(len(lists.item))).astype(np.int32)


def history_of(baskets: Sequence[Sequence[str]] | None, place: Mapping[str, int]) -> History | None:
    """Past baskets, oldest first, of one asking user; `place` says where an item stands, others are left out."""
    if not baskets:
        return None
    item, age = list[int](), list[int]()
    for at, basket in enumerate(reversed(baskets)):
        for known in sorted({place[i] for i in basket if i in place}):
            item.append(known)
            age.append(at)
    return History(np.array([0, len(item)], np.int64), np.array(item, np.int32), np.array(age, np.int32))


def by_popularity_where_unknown(scores: Scores, state: State) -> Scores:
    """Scores that are exactly 0 (nothing is known) replaced by a hint of popularity, too small to pass any other."""
    return np.where(scores == 0, popularity_hint(state), scores)


def popularity_hint(state: State) -> Scores:
    """What stands for a score of 0: float32 [items]."""
    hint: Scores = (1e-12 * state["popularity"]).astype(np.float32)
    return hint


def reasons(model: Model, state: State, query: Query, item: int) -> list[tuple[str, int | None, float]]:
    """Why `item` is suggested in the first query: (term, item or None, share), largest first; shares sum to 1."""
    found = model.explain(state, query, item) or [("popular", None, 1.0)]
    total = sum(amount for _, _, amount in found)
    return [(term, cause, amount / total) for term, cause, amount in found]


def _folded(text: str) -> str:
    return text.strip().casefold()


def _parquet(table: pl.DataFrame) -> bytes:
    import io

    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()
