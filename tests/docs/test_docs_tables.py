"""Tables of models say what the models say: limits, rounds, tolerances."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coterie.models import registry

ROOT = Path(__file__).parents[2]
ROUNDS = ("iterations", "rounds")


def rows(page: str, name: str, section: str | None = None) -> list[str]:
    """The rows of a page's tables, or of one section's, that begin with this model or name it among others."""
    text = (ROOT / page).read_text("utf-8")
    if section is not None:
        text = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return [line for line in text.splitlines() if re.match(rf"\| (?:`[\w-]+`, )*`{name}`", line)]


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_the_readme_says_how_many_items_a_model_takes(name: str) -> None:
    limit = registry.BUILT_IN[name].max_dense_items
    (row,) = rows("README.md", name)
    assert row.endswith("| none |" if limit is None else f"| {limit:,} items |")


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_models_that_may_stop_early_are_listed_with_their_defaults(name: str) -> None:
    fields = registry.BUILT_IN[name].model_fields
    listed = rows("docs/how-to/stop-early.md", name)
    if "tolerance" not in fields:
        assert listed == []
        return
    most = next(field for field in ROUNDS if field in fields)
    (row,) = listed
    assert f"| `{most}` |" in row
    default = row.split("|")[-2]
    assert float(default.split()[0]) == fields["tolerance"].default


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_what_a_model_sends_is_listed_once_and_its_own_numbers_are_named(name: str) -> None:
    (row,) = rows("docs/how-to/choose-a-model.md", name, "Rounds, and what each sends")
    named = set(re.findall(r"`(\w+)`", row)) - set(registry.BUILT_IN)
    assert named <= set(registry.BUILT_IN[name].model_fields)


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_what_a_model_sums_under_noise_is_listed_once_and_its_own_numbers_are_named(name: str) -> None:
    (row,) = rows("docs/how-to/choose-a-model.md", name, "With `--epsilon`")
    named = set(re.findall(r"`(\w+)`", row)) - set(registry.BUILT_IN)
    assert named <= set(registry.BUILT_IN[name].model_fields)


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_tuning_says_whether_one_sum_is_enough(name: str) -> None:
    model = registry.BUILT_IN[name]
    listed = rows("docs/how-to/tune.md", name)
    assert bool(listed) == bool(model.grid)
    takes = "a training for each combination"
    if set(model.grid) <= model.scoring_only:
        takes = "one training: all enter at scoring time"
    for row in listed:
        assert row.endswith(f"| {'one sum' if model.one_sum else takes} |")
