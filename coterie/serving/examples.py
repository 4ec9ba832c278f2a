"""Examples of every body and answer, for the OpenAPI document; tests hold them against their schemas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any


def components() -> dict[str, dict[str, Any]]:
    """All examples, by the names under which the document holds them."""
    return {
        _key(name, label): {"summary": label, "value": value}
        for name, shown in _all().items()
        for label, value in shown.items()
    }


def references(shown: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """References to one of the mappings of this module, for use as ``examples``."""
    name = next(name for name, one in _all().items() if one is shown)
    return {label: {"$ref": f"#/components/examples/{_key(name, label)}"} for label in shown}


def _all() -> dict[str, Mapping[str, Any]]:
    return {name: shown for name, shown in globals().items() if name.isupper() and not name.startswith("_")}


def _key(name: str, label: str) -> str:
    return f"{name.lower()}-{re.sub('[^a-z0-9]+', '-', label.lower())}"


BASKET: dict[str, Any] = {
    "plain ids": {"items": ["A00001", "A00002"], "k": 4},
    "with options": {
        "items": [{"item": "A00001", "quantity": 2, "time": "2026-05-01T18:30:00+02:00"}, "A00002"],
        "k": 4,
        "exclude": ["A00003"],
        "filter": "price < 20.0",
        "boost": "stock > 10 ? 1.2 : 1.0",
        "diversity": 0.3,
        "explain": True,
    },
    "a guest who has nothing yet": {"items": []},
}
USER: dict[str, Any] = {
    "from the shop's server": {"user": "u17", "items": ["A00001"], "k": 4},
    "without a basket": {"user": "u17"},
}
SIMILAR: dict[str, Any] = {"like one item": {"item": "A00001", "k": 4}}
POPULAR: dict[str, Any] = {"what most people take": {"k": 4}}
RECOMMENDATIONS: dict[str, Any] = {
    "an answer": {
        "recommendationId": "AAAAAAEAADEyMzQ1Njc4OTAxMv8Q7m0zW0aQx1c",
        "items": [
            {
                "item": "A00007",
                "score": 0.412,
                "title": "Coffee filter, paper",
                "url": "https://shop.example.org/a7",
                "price": 3.5,
                "currency": "EUR",
                "stock": 12,
                "attributes": {"tags": ["kitchen"]},
                "because": [{"term": "pairs", "item": "A00001", "share": 1.0}],
            }
        ],
        "unknown": ["A00002"],
        "fallback": None,
        "personal": False,
        "version": 1,
    }
}

_FIELDS: dict[str, Any] = {
    "title": "Coffee filter, paper",
    "url": "https://shop.example.org/a7",
    "image": "/images/a7.jpg",
    "price": 3.5,
    "currency": "EUR",
    "stock": 12,
    "language": "en",
    "group": "coffee-filter",
    "attributes": {"tags": ["kitchen"], "margin": 0.4},
}
PUT_ITEM: dict[str, Any] = {"an item": _FIELDS}
PATCH_ITEM: dict[str, Any] = {"sold out": {"stock": 0}, "stock is not counted any more": {"stock": None}}
ITEM: dict[str, Any] = {
    "an item": {"id": "A00007", **_FIELDS, "updatedAt": "2026-05-01T16:30:00Z", "inModel": True},
}
ITEMS: dict[str, Any] = {"a page": {"items": [ITEM["an item"]], "next": None}}
ITEMS_IN: dict[str, Any] = {
    "a night's changes": {
        "put": [{"id": "A00007", "title": "Coffee filter, paper", "price": 3.5, "currency": "EUR", "stock": 12}],
        "patch": [{"id": "A00007", "stock": 11}],
        "delete": ["A00009"],
    }
}
ITEMS_DONE: dict[str, Any] = {"done": {"put": 1, "patched": 1, "deleted": 0, "missing": ["A00009"]}}

EVENT: dict[str, Any] = {
    "a click on a suggestion": {
        "eventId": "5e9d4f4e-click",
        "type": "click",
        "time": "2026-05-01T18:30:00+02:00",
        "item": "A00007",
        "position": 1,
        "recommendationId": "AAAAAAEAADEyMzQ1Njc4OTAxMv8Q7m0zW0aQx1c",
    },
    "a batch": {
        "events": [
            {
                "eventId": "order-1001",
                "type": "purchase",
                "time": "2026-05-01T18:31:00+02:00",
                "user": "u17",
                "basket": "1001",
                "items": [{"item": "A00001", "quantity": 2, "price": 9.9}, {"item": "A00007"}],
            },
            {
                "eventId": "rating-77",
                "type": "rating",
                "time": "2026-05-01T18:32:00+02:00",
                "user": "u17",
                "item": "A00001",
                "value": 4.5,
            },
        ]
    },
}
EVENTS_DONE: dict[str, Any] = {"stored": {"stored": 2, "duplicates": 0, "declined": 0}}

EXPORT: dict[str, Any] = {
    "a user's data": {
        "user": "u17",
        "exportedAt": "2026-05-02T08:00:00Z",
        "consent": None,
        "events": [
            {
                "eventId": "order-1001",
                "type": "purchase",
                "basket": "1001",
                "time": "2026-05-01T16:31:00+00:00",
                "user": "u17",
                "items": [{"item": "A00001", "quantity": 2.0, "price": 9.9}],
            }
        ],
        "other": {},
    }
}
ERASURE: dict[str, Any] = {
    "a receipt": {
        "receipt": "r-5b0c",
        "user": "u17",
        "salt": "9f86d081884c7d65",
        "proof": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
        "time": "2026-05-02T08:00:00Z",
        "erased": {"events": 3},
        "note": "Models that were trained before, backups and exported files are not reached by this.",
    }
}
CONSENT_IN: dict[str, Any] = {"the user objects": {"consent": False}, "the user agrees": {"consent": True}}
CONSENT: dict[str, Any] = {"objected": {"user": "u17", "recorded": False, "stored": False}}
TOKEN: dict[str, Any] = {
    "a token": {
        "userToken": "AAZSx2cQsADNm8fWc3K5p9bYV5hCkMD1sUv3u3vYr2PqU2vJ1mXHhQ",
        "expiresAt": "2026-05-02T20:00:00Z",
    }
}

MODELS: dict[str, Any] = {
    "one version": {
        "answers": "plain",
        "versions": [
            {
                "version": 1,
                "model": "cart",
                "run": "first",
                "fingerprint": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
                "signedAt": "2026-05-01T08:00:00Z",
                "loadedAt": "2026-05-01T09:00:00Z",
                "signer": "66687aadf862bd776c8fc18b8e9f8e20",
                "allowed": [],
                "items": 120,
                "share": 1.0,
                "privacy": {"epsilon": None, "noise": "none"},
                "privacyCard": "# Privacy card\n",
            }
        ],
    }
}
CARD: dict[str, Any] = {"a card": "# Privacy card\n\n**No differential privacy.** This card is about model `cart`.\n"}
BROWSER_MANIFEST: dict[str, Any] = {
    "a manifest": {
        "agreement": {"measured_on": "400 baskets of 1 to 8 items, drawn by popularity", "overlap@10": 0.957},
        "coterie": "0.1.0",
        "empty_basket": "popularity",
        "entries": 29_412,
        "files": {"model-60303ae22b998861.bin": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"},
        "fingerprint": "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab",
        "items": 600,
        "layout": "coterie-browser-1",
        "model": "cart",
        "neighbours": 50,
        "notes": [],
        "privacy": {"delta": None, "epsilon": "none", "noise": "none", "unit": None},
        "public_key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "quantisation": "int8, a float32 step for each row",
        "signature": "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
        "sizes": {"model-60303ae22b998861.bin": 121_038},
    }
}
BROWSER_FILE: dict[str, Any] = {"how it begins": "COTERIE1"}
LIVE: dict[str, Any] = {"alive": {"status": "alive"}}
PROBLEMS: dict[str, Any] = {
    f"{status}": {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    for status, detail in {
        400: "the body is no JSON (EOF while parsing an object at line 1 column 1)",
        401: "this needs an API key with scope 'recommend': send it as 'Authorization: Bearer KEY'",
        403: "the key 'page' has no scope 'items'; use one that has",
        404: "there is no item with this id; put it first",
        408: "the body did not arrive within 30 s; send it again",
        409: "this run has no model of its own for client 'north'; it keeps models for 3 clients",
        413: "one request may hold 1,000 items, got 1,200; send them in parts",
        415: "bodies must be JSON; send them with Content-Type: application/json",
        421: "this service does not answer under that host name; set server.public_url",
        422: "#/items/1/quantity: input should be greater than 0",
        429: "too many requests with this key; wait 1 s and send it again",
        500: "this is a fault of the service; its log knows it as 0f3a9c1e5b7d2a46",
        503: "the service cannot do this just now; send the same request again in a few seconds",
    }.items()
}
READY: dict[str, Any] = {"ready": {"status": "ready"}}
METRICS: dict[str, Any] = {"a line": 'coterie_requests_total{route="/v1/recommend/basket",status="200"} 1.0\n'}
