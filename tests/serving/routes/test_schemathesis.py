"""Requests made up from the OpenAPI document, right ones and wrong ones: none is answered otherwise than it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")
pytest.importorskip("schemathesis", reason="needs schemathesis")

import schemathesis
from hypothesis import strategies as st
from schemathesis.config import (
    ChecksConfig,
    GenerationConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)
from schemathesis.engine import events, from_schema

SEED, EXAMPLES = 6, 12
# Right data is refused with 400 where a text is no expression, which JSON Schema cannot say; the rest are the defaults.
ACCEPTED = ["2xx", "400", "401", "403", "404", "409"]

# Neither can it say that a time lies in the past, and texts of other forms are wrong data already.
schemathesis.openapi.format("date-time", st.sampled_from(["2026-05-01T18:30:00+02:00", "2001-01-01T00:00:00.5Z"]))


def test_every_answer_is_as_the_document_says(desk_of: Callable[..., Any]) -> None:
    access = {"failures_per_minute": 1_000_000, "secret_per_minute": 10_000_000}
    desk = desk_of(access=access, server={"public_url": "http://testserver"})
    found = failures(desk.app, {"Authorization": f"Bearer {desk.key}"})
    assert not found, "\n\n".join(found)


def failures(app: Any, headers: dict[str, str]) -> list[str]:
    """What all checks of schemathesis find, in all its phases."""
    generation = GenerationConfig(max_examples=EXAMPLES, deterministic=True)
    accepted = PositiveDataAcceptanceConfig(expected_statuses=ACCEPTED)
    checks = ChecksConfig(positive_data_acceptance=accepted)
    project = ProjectConfig(headers=headers, generation=generation, checks=checks)
    config = SchemathesisConfig(seed=SEED, projects=ProjectsConfig(default=project))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    found, cases = list[str](), 0
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.append(str(event.info if isinstance(event, events.NonFatalError) else event.exception))
        if isinstance(event, events.ScenarioFinished):
            cases += len(event.recorder.cases)
            found += said(event)
    assert cases > 500  # it did look
    return found


def said(event: events.ScenarioFinished) -> Iterator[str]:
    for case, checks in event.recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                told = check.failure_info
                reply = event.recorder.interactions[case].response
                answer = "" if reply is None else f"{reply.status_code} {reply.content!r}"
                yield f"{event.label} ({event.phase.name}): {told.failure}\n{told.code_sample}\n{answer}"
