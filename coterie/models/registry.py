"""Models by name, and their hyper-parameters as one list for the command line, `coterie.toml` and the docs.

Other packages add models through the entry point group ``coterie.models``: its name is the model's, its value a
subclass of `coterie.models.base.Model`. A package that cannot be used spoils nothing: what is wrong with it is said
when its model is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Union

from pydantic import ValidationError

from coterie.errors import ConfigError, closest
from coterie.models.base import Model
from coterie.models.cart import Cart
from coterie.models.cosine import Cosine
from coterie.models.ease import Ease
from coterie.models.gfcf import GfCf
from coterie.models.ials import Ials
from coterie.models.mf import Mf
from coterie.models.popularity import Popularity
from coterie.models.sequence import SessionPairs
from coterie.models.spectral import Spectral
from coterie.models.subspace import Subspace
from coterie.models.user_similarity import UserSimilarity
from coterie.settings import describe

GROUP = "coterie.models"
RESERVED = frozenset({"name", "tune"})
BUILT_IN: Mapping[str, type[Model]] = MappingProxyType({
    model.name: model
    for model in (Cart, Ease, Ials, GfCf, Spectral, Subspace, SessionPairs, Mf, Cosine, UserSimilarity, Popularity)
})  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Models of this and of other packages, and what is wrong with those that cannot be used."""

    models: Mapping[str, type[Model]]
    broken: Mapping[str, str]


@functools.cache
def found() -> Found:
    """All models: the built-in ones first, the default before all; then those of other packages, by name."""
    models, broken = dict(BUILT_IN), dict[str, str]()
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            model = _loaded(point, models)
        except ConfigError as error:
            broken[point.name] = str(error)
        else:
            models[point.name] = model
    return Found(MappingProxyType(models), MappingProxyType(broken))


def models() -> Mapping[str, type[Model]]:
    """Every model that can be used, by name."""
    return found().models


def names() -> tuple[str, ...]:
    """Names of all models, the default first."""
    return tuple(models())


def parameters() -> dict[str, tuple[Any, str]]:
    """Every hyper-parameter of any model: name -> (python type, help that names the models and their defaults)."""
    listed: dict[str, tuple[Any, str]] = {}
    for key in dict.fromkeys(key for model in models().values() for key in model.model_fields):
        owners = {name: model.model_fields[key] for name, model in models().items() if key in model.model_fields}
        kinds = list(dict.fromkeys(info.annotation for info in owners.values()))
        texts: dict[str, list[str]] = {}
        for name, info in owners.items():
            defaults = texts.setdefault(str(info.description), [])
            if info.default is not None:  # else the description says what happens without it
                defaults.append(f"{name} {info.default}")
        said = " ".join(f"{text} Default: {', '.join(d)}." if d else text for text, d in texts.items())
        listed[key] = (Union[tuple(kinds)], said)  # noqa: UP007  # of kinds that are known at run time
    return listed


def build(settings: Mapping[str, Any]) -> Model:
    """The model that a ``[model]`` table describes (``name`` and hyper-parameters; ``tune`` is not the model's).

    Raises:
        ConfigError: an unknown model or hyper-parameter (with the nearest valid one), or a value out of range.
    """
    known, name = models(), settings.get("name", "cart")
    if not isinstance(name, str) or name not in known:
        if str(name) in found().broken:
            raise ConfigError(found().broken[str(name)])
        raise ConfigError(f"unknown model {name!r}{closest(str(name), known)}; models: {', '.join(known)}")
    model = known[name]
    given = {key: value for key, value in settings.items() if key not in RESERVED}
    for key in given:
        if key not in model.model_fields:
            raise ConfigError(f"model '{name}' has no parameter '{key}'{_where(key, model)}")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"model '{name}': {describe(error)}") from None


def _loaded(point: EntryPoint, taken: Mapping[str, type[Model]]) -> type[Model]:
    """The model behind an entry point.

    Raises:
        ConfigError: it cannot be imported, is no model, or its name is taken; names the package.
    """
    package = point.dist.name if point.dist is not None else point.value
    if point.name in taken:
        raise ConfigError(f"model '{point.name}' of the package '{package}': the name is taken; rename its entry point")
    try:
        model = point.load()
    except Exception as error:  # noqa: BLE001  # anything may go wrong in somebody else's package
        raise ConfigError(
            f"model '{point.name}' of the package '{package}' cannot be loaded ({type(error).__name__}: {error}); "
            "repair or uninstall that package"
        ) from None
    if not (isinstance(model, type) and issubclass(model, Model)):
        raise ConfigError(
            f"model '{point.name}' of the package '{package}': {point.value} is no coterie.models.base.Model"
        )
    if getattr(model, "name", None) != point.name:
        raise ConfigError(
            f"model '{point.name}' of the package '{package}' calls itself {getattr(model, 'name', None)!r}; its class "
            "and its entry point must agree"
        )
    if clash := RESERVED & set(model.model_fields):
        raise ConfigError(
            f"model '{point.name}' of the package '{package}': a parameter may not be called {sorted(clash)}"
        )
    return model


def _where(key: str, model: type[Model]) -> str:
    if others := [name for name, other in models().items() if key in other.model_fields]:
        return f"; it belongs to {', '.join(others)}"
    known = ", ".join(model.model_fields) or "none"
    return closest(key, [*model.model_fields, *sorted(RESERVED)]) or f"; parameters: {known}"
