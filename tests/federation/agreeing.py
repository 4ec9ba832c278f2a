"""Both halves of an agreement on items in one process, with whatever a test puts between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from coterie.data.catalogue import Catalogue
from coterie.errors import PeerError
from coterie.federation.agreed import Agreed, Mode
from coterie.federation.agreement import Agreement
from coterie.federation.alignment import Alignment
from coterie.federation.assortment import Assortment
from coterie.federation.identifiers import check_digit
from coterie.federation.nodeagreement import NodeAgreement
from coterie.secure.keys import Identity, fingerprint

Content = tuple[dict[str, Any], dict[str, bytes]]
Middle = Callable[[str, str, Content], Content]

JOB = "weekly-1"


def honest(member: str, step: str, content: Content) -> Content:
    """A coordinator that passes on what it is given."""
    return content


def gtin(number: int) -> str:
    """The number-th GTIN-13 of a company."""
    digits = f"400638{number:06d}"
    return digits + check_digit(digits)


def texts(*rows: tuple[str | None, ...], columns: tuple[str, ...] = ("item", "title")) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def plain(*items: str) -> Assortment:
    """An assortment of items with the titles that their ids suggest."""
    return Assortment.listed(texts(*((item, f"the {item}") for item in items)))


def identified(prefix: str, *numbers: int) -> Assortment:
    """An assortment with own ids, and the GTINs of these numbers."""
    rows = [(f"{prefix}{number}", f"item {number}", gtin(number)) for number in numbers]
    return Assortment.listed(texts(*rows, columns=("item", "title", "gtin")), identifier="gtin")


class Party:
    """A coordinator and its nodes; `heard` is every byte that the coordinator was sent."""

    def __init__(
        self,
        mode: Mode,
        assortments: Mapping[str, Assortment],
        min_carriers: int = 2,
        given: Catalogue | None = None,
        **settings: Any,
    ) -> None:
        self.identities = {name: Identity() for name in assortments}
        self.public = {name: one.public for name, one in self.identities.items()}
        self.agreement = Agreement(mode, min_carriers, self.public, given, job=JOB)
        self.nodes = {
            name: NodeAgreement(
                assortment,
                self.identities[name],
                self.public,
                mode=mode,
                job=JOB,
                **{"min_carriers": min_carriers, "two_party": True, **settings},
            )
            for name, assortment in assortments.items()
        }
        self.heard = b""
        self.refusals: dict[str, str] = {}

    @property
    def leader(self) -> str:
        return min(self.public, key=lambda name: fingerprint(self.public[name]))

    def agree(
        self, to_node: Middle = honest, from_node: Middle = honest, absent: Mapping[str, str] | None = None
    ) -> Agreed:
        """Play all stages; `absent` members stop answering at their step, refusals count as no answer."""
        stage, gone = 0, set[str]()
        while (requests := self.agreement.requests(stage)) is not None:
            present = set[str]()
            for member, (header, blobs) in requests.items():
                step = header["step"]
                if (absent or {}).get(member) == step:
                    gone.add(member)
                if member not in gone and self._ask(member, step, stage, (header, blobs), to_node, from_node):
                    present.add(member)
            self.agreement.close_stage(present)
            stage += 1
        return self.agreement.result

    def alignments(self, agreed: Agreed) -> dict[str, Alignment]:
        return {name: node.align(agreed) for name, node in self.nodes.items()}

    def _ask(self, member: str, step: str, stage: int, request: Content, to_node: Middle, from_node: Middle) -> bool:
        try:
            header, blobs = to_node(member, step, request)
            reply = from_node(member, step, self.nodes[member].answer(stage, header, blobs))
            self.heard += b"".join(reply[1].values())
            self.agreement.take(member, *reply)
        except PeerError as error:
            self.refusals[member] = str(error)
            return False
        return True
