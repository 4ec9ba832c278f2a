"""Models by name, and their hyper-parameters as one list for the command line, `coterie.toml` and the docs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from coterie.errors import ConfigError, closest
from coterie.models.base import Model
from coterie.models.cart import Cart
from coterie.models.cosine import Cosine
from coterie.models.ease import Ease
from coterie.models.popularity import Popularity
from coterie.settings import describe

MODELS: Mapping[str, type[Model]] = MappingProxyType({m.name: m for m in (Cart, Ease, Cosine, Popularity)})


def names() -> tuple[str, ...]:
    """Names of all models, the default first."""
    return tuple(MODELS)


def parameters() -> dict[str, tuple[Any, str]]:
    """Every hyper-parameter of any model: name -> (python type, help that names the models and their defaults)."""
    found: dict[str, tuple[Any, str]] = {}
    for key in dict.fromkeys(key for model in MODELS.values() for key in model.model_fields):
        owners = {name: model.model_fields[key] for name, model in MODELS.items() if key in model.model_fields}
        first = next(iter(owners.values()))
        defaults = ", ".join(f"{name} {info.default}" for name, info in owners.items())
        found[key] = (first.annotation, f"{first.description} Default: {defaults}.")
    return found


def build(settings: Mapping[str, Any]) -> Model:
    """The model that a ``[model]`` table describes (``name`` and hyper-parameters; ``tune`` is not the model's).

    Raises:
        ConfigError: an unknown model or hyper-parameter (with the nearest valid one), or a value out of range.
    """
    name = settings.get("name", "cart")
    if not isinstance(name, str) or name not in MODELS:
        raise ConfigError(f"unknown model {name!r}{closest(str(name), MODELS)}; models: {', '.join(MODELS)}")
    model = MODELS[name]
    given = {key: value for key, value in settings.items() if key not in ("name", "tune")}
    for key in given:
        if key not in model.model_fields:
            raise ConfigError(f"model '{name}' has no parameter '{key}'{_where(key, model)}")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"model '{name}': {describe(error)}") from None


def _where(key: str, model: type[Model]) -> str:
    if others := [name for name, other in MODELS.items() if key in other.model_fields]:
        return f"; it belongs to {', '.join(others)}"
    known = ", ".join(model.model_fields) or "none"
    return closest(key, [*model.model_fields, "name", "tune"]) or f"; parameters: {known}"
