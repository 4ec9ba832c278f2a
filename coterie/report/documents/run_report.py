"""The run report: what was trained, what was measured, for whom it is better, what was cleaned, what it took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coterie.report import reading
from coterie.report.documents.common import about, counted, fact
from coterie.report.documents.facts import Facts
from coterie.report.documents.words import Code, Document, Note, Section, Table, Text

MOST_CLIENTS = 200


def made(facts: Facts) -> Document:
    """The report; its JSON also has the whole result, and what each round summed."""
    result = facts.result
    return Document(
        kind="run",
        title=f"{facts.model or 'Coterie'} run",
        lead=_lead(result),
        sections=(
            Section("data", "What was trained on", fields=counted(facts)),
            comparison(facts),
            clients(facts),
            _cleaning(result),
            _split(result),
            _privacy(facts),
            _cost(result),
            Section("caveats", "Read with care", points=tuple((text,) for text in result.get("caveats") or ())),
        ),
        on=facts.on,
        about=about(facts),
        extra={"result": facts.public_result, "rounds": list(facts.rounds)},
    )


def comparison(facts: Facts, key: str = "comparison", title: str = "Comparison") -> Section:
    """Every scheme on the headline metrics, with what is known of how sure that is."""
    result = facts.result
    metrics, noise = reading.headline(result), result.get("metrics_noise") or {}
    if not metrics:
        return Section(key, title, text=(("No metric was measured, or none was released.",),))
    rows = [
        (_scheme(scheme), *(_cell(result, noise, scheme, m) for m in metrics)) for scheme in reading.schemes(result)
    ]
    how = "Beside each, where there is one: the confidence interval." if result.get("intervals") else ""
    how = "Behind ±: the standard deviation of the noise." if noise else how
    caption = f"Means over {'users' if noise else 'held-out cases'}. {how}".strip()
    table = Table(caption, ("scheme", *metrics), tuple(rows), frozenset(range(1, len(metrics) + 1)))
    sentence = (result.get("comparison") or {}).get("sentence")
    return Section(key, title, text=((_sentence(sentence),),) if sentence else (), tables=(table,))


def clients(facts: Facts, key: str = "clients", title: str = "By client") -> Section:
    """Each client on the first metric: alone, together, and the change."""
    result, metric = facts.result, reading.main_metric(facts.result)
    rows = list(result.get("per_client") or []) if not facts.devices else []
    if not rows or metric is None:
        why = "Clients are one person each, and are not shown." if facts.devices else "Nothing is stated by client."
        return Section(key, title, text=((why,),))
    shown = reading.clients_with(rows, metric)
    rows.sort(key=lambda row: (-(reading.known(row.get("users")) or 0), str(row.get("client"))))
    table = Table(
        f"{metric} on each client's own held-out cases, the largest first.{_left_out(len(rows))}",
        ("client", "users", "cases", *(name.replace("_", " ") for name in shown), "change"),
        tuple(_client(row, metric, shown) for row in rows[:MOST_CLIENTS]),
        frozenset(range(1, len(shown) + 4)),
    )
    return Section(key, title, tables=(table,))


def _lead(result: Mapping[str, Any]) -> Text:
    sentence = (result.get("comparison") or {}).get("sentence")
    return (_sentence(sentence) if sentence else f"What one training of {result.get('model') or 'a model'} gave.",)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _scheme(scheme: str) -> Text:
    meaning = reading.SCHEMES.get(scheme)
    return (scheme.replace("_", " "), Note(meaning)) if meaning else (scheme,)


def _cell(result: Mapping[str, Any], noise: Mapping[str, Any], scheme: str, metric: str) -> Text:
    value, limits = reading.value(result, scheme, metric), reading.interval(result, scheme, metric)
    shown = reading.figure(value)
    spread = reading.known((noise.get(scheme) or {}).get(metric))
    if value is not None and spread is not None:
        return (f"{shown} ± {spread:.4f}",)
    if value is not None and limits is not None:
        return (shown, Note(f"{limits[0]:.4f} to {limits[1]:.4f}"))
    return (shown,)


def _client(row: Mapping[str, Any], metric: str, shown: list[str]) -> tuple[Text, ...]:
    values = {scheme: reading.client_value(row, scheme, metric) for scheme in shown}
    change = reading.change(values.get("alone"), reading.served(row, metric))
    counts = (reading.count(row.get("users")), reading.count(row.get("cases")))
    return (
        (str(row.get("client", "")),),
        *((cell,) for cell in (*counts, *map(reading.figure, values.values()), change)),
    )


def _left_out(n: int) -> str:
    return f" {n - MOST_CLIENTS:,} smaller ones are left out." if n > MOST_CLIENTS else ""


def _cleaning(result: Mapping[str, Any]) -> Section:
    steps = result.get("cleaning") or []
    if not steps:
        return Section("cleaning", "Cleaning", text=(("No step of cleaning is stated.",),))
    rows: tuple[tuple[Text, ...], ...] = tuple(
        (
            (Code(str(one["step"])),),
            (str(one.get("why", "")),),
            *((reading.count(one.get(k)),) for k in ("dropped", "changed")),
        )
        for one in steps
    )
    table = Table(
        "What each step dropped or rewrote, in rows.", ("step", "why", "dropped", "changed"), rows, frozenset({2, 3})
    )
    return Section("cleaning", "Cleaning", tables=(table,))


def _split(result: Mapping[str, Any]) -> Section:
    split = result.get("split") or {}
    return Section(
        "split",
        "What was held out",
        fields=(fact("method", "how", split.get("method")), fact("note", "in counts", split.get("note"))),
    )


def _privacy(facts: Facts) -> Section:
    privacy = facts.privacy
    return Section(
        "privacy",
        "Privacy",
        fields=(
            fact("statement", "what is promised", privacy.get("statement")),
            fact("epsilon", "epsilon", privacy.get("epsilon")),
            fact("delta", "delta", privacy.get("delta"), f"{privacy.get('delta')}"),
            fact("epsilon_spent", "epsilon spent", privacy.get("epsilon_spent"), f"{privacy.get('epsilon_spent')}"),
            fact("noise", "noise", privacy.get("noise")),
            fact("aggregation", "aggregation", privacy.get("aggregation")),
            fact("rounds", "rounds", privacy.get("rounds")),
        ),
    )


def _cost(result: Mapping[str, Any]) -> Section:
    traffic, timing = result.get("traffic") or {}, result.get("timing") or {}
    sent = {key: reading.known(traffic.get(f"{key}_bytes_per_client")) for key in ("upload", "download")}
    took = {key: reading.known(timing.get(f"{key}_s")) for key in ("train", "evaluate")}
    return Section(
        "cost",
        "Traffic and time",
        fields=(
            *(fact(f"{k}_bytes", f"{k} per client", v, reading.size(v)) for k, v in sent.items()),
            *(
                fact(f"{k}_seconds", f"seconds to {k}", v, f"{v:.1f}" if v is not None else None)
                for k, v in took.items()
            ),
        ),
    )
