"""Documents about a run, for people who answer for it: as HTML, Markdown or JSON, all with the same fields.

The run report, the model card and the privacy card say what is. The others are drafts: they are filled from the run's
settings and the privacy ledger, say so on top and in the name of their file, and leave a blank wherever only people
know. `render` gives one of them as text, `write` as files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

from coterie.errors import ConfigError, closest
from coterie.federation.policy import Policy
from coterie.files import write_text
from coterie.privacy.ledger_statement import Statement
from coterie.report.documents import (
    gdpr_26,
    gdpr_30,
    gdpr_35,
    model_card,
    pipl,
    privacy_card,
    privacy_notice,
    run_report,
)
from coterie.report.documents.facts import Documented, Facts, Stored
from coterie.report.documents.rendering import as_html, as_json, as_markdown
from coterie.report.documents.words import Document
from coterie.report.html import report_page

__all__ = ["FORMATS", "KINDS", "Documented", "Facts", "Format", "Stored", "Written", "document", "file_name", "render"]
__all__ += ["write"]

Format: TypeAlias = Literal["html", "md", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)

ALL = "all"
_MAKERS: Mapping[str, Callable[[Facts], Document]] = MappingProxyType({
    "run": run_report.made,
    "model-card": model_card.made,
    "privacy-card": privacy_card.made,
    "gdpr-30": gdpr_30.made,
    "gdpr-35": gdpr_35.made,
    "gdpr-26": gdpr_26.made,
    "privacy-notice": privacy_notice.made,
    "pipl": pipl.made,
})  # fmt: skip
KINDS: Mapping[str, str] = MappingProxyType({
    "run": "What was trained and measured, with plots.",
    "model-card": "What the model is, is for, and does (Mitchell et al. 2019).",
    "privacy-card": "What is promised about privacy, with the fields of NIST SP 800-226.",
    "gdpr-30": "Draft: record of processing activities (GDPR Article 30).",
    "gdpr-35": "Draft: inputs to a data protection impact assessment (GDPR Article 35).",
    "gdpr-26": "Draft: arrangement between joint controllers (GDPR Article 26).",
    "privacy-notice": "Draft: text for people whose data are used (GDPR Articles 13 and 14).",
    "pipl": "Draft: inputs to a personal information protection impact assessment (PIPL Articles 55 and 56).",
})  # fmt: skip
"""Every document, with what it is."""


@dataclass(frozen=True)
class Written:
    """A file that was written; `to_fill_in` is what people must still say in it."""

    kind: str
    format: Format
    path: Path
    draft: bool
    to_fill_in: tuple[str, ...]


def render(
    run: Documented,
    kind: str,
    format: Format,
    *,
    account: Statement | None = None,
    policy: Policy | None = None,
    on: date | None = None,
) -> str:
    """One document of a run, as text.

    Args:
        run: a `coterie.experiment.run.Run`, or `Stored`.
        kind: a key of `KINDS`.
        format: "html" (a page that loads nothing), "md" or "json".
        account: what the ledger says of the account that paid; else the run's own record of it is used.
        policy: that of the node that keeps the document.
        on: the day that the document bears; by default today.

    Raises:
        ConfigError: no such document or format.
        CoterieError: a file of the run cannot be read, or its privacy facts cannot be described.
    """
    facts = Facts.of(run, account=account, policy=policy, on=on)
    return _text(document(facts, kind), facts, format)


def write(
    run: Documented,
    kind: str | Sequence[str],
    format: Format,
    folder: Path,
    *,
    account: Statement | None = None,
    policy: Policy | None = None,
    on: date | None = None,
    force: bool = False,
) -> list[Written]:
    """Write one document, several, or "all" of them, into `folder`. Arguments are as in `render`.

    Raises:
        ConfigError: no such document or format, or a file is there already (somebody may have filled it in) and `force`
            is false; nothing is written then.
        CoterieError: as `render`, or the disk refuses.
    """
    kinds = tuple(KINDS) if kind == ALL else (kind,) if isinstance(kind, str) else kind
    facts = Facts.of(run, account=account, policy=policy, on=on)
    made = [document(facts, one) for one in kinds]
    found = [Written(one.kind, format, folder / file_name(one.kind, format), one.draft, one.to_fill_in) for one in made]
    if not force:
        _refuse_existing(one.path for one in found)
    texts = [_text(one, facts, format) for one in made]
    for one, text in zip(found, texts, strict=True):
        write_text(one.path, text)
    return found


def document(facts: Facts, kind: str) -> Document:
    """One document, before it is laid out.

    Raises:
        ConfigError: there is no such document.
    """
    if kind not in _MAKERS:
        raise ConfigError(f"document must be one of {', '.join(_MAKERS)}, got '{kind}'{closest(kind, _MAKERS)}")
    return _MAKERS[kind](facts)


def file_name(kind: str, format: Format) -> str:
    """What a document's file is called.

    >>> file_name("gdpr-30", "md"), file_name("run", "html")
    ('DRAFT-gdpr-30.md', 'run.html')
    """
    return f"{'DRAFT-' if KINDS[kind].startswith('Draft') else ''}{kind}.{format}"


def _text(made: Document, facts: Facts, format: Format) -> str:
    if format == "html":
        return report_page(facts.result, facts.plots) if made.kind == "run" else as_html(made)
    if format == "md":
        return as_markdown(made)
    if format == "json":
        return as_json(made)
    raise ConfigError(f"format must be one of {', '.join(FORMATS)}, got '{format}'{closest(format, FORMATS)}")


def _refuse_existing(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path}: exists already, and somebody may have filled it in; --force replaces it")
