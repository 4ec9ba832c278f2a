"""Every scheme of the buyer's table at every organisation: on its own catalogue, its own cases, the same for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from coterie.evaluation.metrics import Measured, evaluate
from coterie.experiment.buyers_figures import ALONE, CENTRALISED, FEDERATED, MIX, TEXTS, Member, Scheme
from coterie.experiment.buyers_trainings import Joined, Market
from coterie.experiment.compare import headline, usable
from coterie.experiment.fitting import Bench, Notify, public_of, scorer
from coterie.models.base import Model, narrow_items
from coterie.models.cart import Cart
from coterie.types import Array, Cases, Items, State

BY_TEXTS = Cart(history_weight=0.0, next_popularity=0.0)


def members_of(market: Market, joined: Sequence[Joined], notify: Notify) -> Iterator[Member]:
    """One organisation after the other: every scheme on its own catalogue and its own cases."""
    model, bench, pooled = market.model, market.bench, market.bench.centralised(market.model)
    texts = _texts(bench)
    for client, name in enumerate(bench.people.names):
        notify("step", {"text": "measuring organisations", "done": client, "total": len(bench.people)})
        items = bench.items_of(client)
        cases = usable(market.test.of_client(name, items), market.settings.evaluation)
        if not len(cases):
            continue
        own, found = bench.alone(model, client), dict[Scheme, Measured]()
        found[ALONE] = _measured(market, model, own, cases)
        if texts is not None:
            found[TEXTS] = _measured(market, BY_TEXTS, texts_alone(texts, len(bench.fit.catalogue), items), cases)
        for one in joined:
            together = bench.restricted(model, one.state, client)
            mix = model.personalise(together, own, one.choices.mix_weight(name))
            found[FEDERATED, one.federation.epsilon] = _measured(market, model, together, cases)
            found[MIX, one.federation.epsilon] = _measured(market, model, mix, cases)
        found[CENTRALISED] = _measured(market, model, bench.restricted(model, pooled, client), cases)
        weights = {one.federation.epsilon: one.choices.mix_weight(name) for one in joined}
        yield Member(name, _facts(bench, client, items, cases), found, weights)


def texts_alone(public: Mapping[str, Array], n_items: int, items: Items) -> State:
    """A state of `BY_TEXTS` over the catalogue `items`: the similarity of item texts in the place of all weights."""
    known = narrow_items(items, State(0, {"n_items": np.array(n_items, np.int64), **public}))
    weights = {"near": known["similarity"], "near_item": known["similarity_item"], "near_ptr": known["similarity_ptr"]}
    return State(1, {"n_items": known["n_items"], "popularity": np.zeros(len(items)), **weights})


def _texts(bench: Bench) -> Mapping[str, Array] | None:
    """The public similarity of item texts; None where items have none."""
    public = bench.public if "similarity" in bench.public else public_of(BY_TEXTS, bench.fit)
    return {name: public[name] for name in public if name.startswith("similarity")} or None


def _measured(market: Market, model: Model, state: State, cases: Cases) -> Measured:
    at = int(headline(market.settings.evaluation.at).rpartition("@")[2])
    return evaluate(scorer(model, state), cases, (at,), int(state["n_items"]))


def _facts(bench: Bench, client: int, items: Items, cases: Cases) -> dict[str, Any]:
    users = bench.people.client(client)
    return {
        "users": users.n_users - bench.fit.guests_of(client),
        "guests": bench.fit.guests_of(client),
        "baskets": users.n_baskets,
        "interactions": len(users.item),
        "items": len(items),
        "cases": len(cases),
        "groups": len(np.unique(cases.group)),
        "unreachable": cases.unreachable,
    }
