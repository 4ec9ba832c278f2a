"""How many organisations carry each item, by a secure sum of zeros and ones; and what members can compute of others."""

from __future__ import annotations

import math

import numpy as np

from coterie.ring import Accumulator
from coterie.types import LocalStore, PartSpec, RoundSpec, State, Total, UserBlock


class Carriers:
    """A summand (`coterie.types.Summand`) of one round, whose total says how many organisations carry each item.

    The unit is an organisation: what it sends is 1 at each item of its assortment, one row of positions
    (`coterie.federation.alignment.Alignment.assortment`). No user's data enters, so there is nothing that noise would
    protect; only the sum is to be seen, so it belongs into secure aggregation. Afterwards the state holds ``carriers``
    (int32 [items]).
    """

    def start(self, n_items: int) -> State:
        """The state before the round."""
        return State(0, {"n_items": np.array(n_items, np.int64)})

    def next_round(self, state: State) -> RoundSpec | None:
        if state.round > 0:
            return None
        n = int(state["n_items"])
        return RoundSpec(0, "client_update", (PartSpec("carriers", (n,), "dense", math.sqrt(n), 1.0, 1),))

    def budget(self, state: State) -> tuple[float, ...]:
        return (1.0,)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Add 1 at each item that an organisation carries, however often it is named."""
        owner = 0 if users.one_client else np.repeat(np.arange(users.n_users), np.diff(users.user_ptr))
        carried = np.unique(owner * users.n_items + users.item.astype(np.int64)) % max(users.n_items, 1)
        np.add.at(out["carriers"], carried, 1)

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        return state.updated(spec.index + 1, carriers=total.integers["carriers"].astype(np.int32))


def partner_note(members: int, *, private: bool) -> str:
    """What the other members can compute of one member's sales, for the privacy card.

    >>> partner_note(3, private=False)
    'Two of 3 members who put their sums together can subtract them from the total and get exactly those of the third.'
    """
    if members == 2:
        who = "Each of the 2 members can subtract its own sums from the total and get"
        whose = "those of the other: how often each item was sold, and with which others"
    else:
        others = "Two" if members == 3 else f"{members - 1}"
        third = "the third" if members == 3 else "the last"
        who = f"{others} of {members} members who put their sums together can subtract them from the total and get"
        whose = f"those of {third}"
    if not private:
        return f"{who} exactly {whose}."
    return (
        f"{who} {whose}, with the noise of the sum less their own: enough of it to hide any one customer (that is what "
        "epsilon promises), not what the organisation sells as a whole."
    )
