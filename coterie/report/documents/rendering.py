"""A document as an HTML page, as Markdown, or as one JSON object."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from coterie import __version__
from coterie.report.documents.words import Blank, Code, Document, Field, Note, Section, Strong, Table, Text, plain
from coterie.report.html import templates

FORMAT, VERSION = "coterie-document", 1
"""What a JSON document says of its own form; the version grows when a key changes its meaning."""

DRAFT = (
    "This is a draft, and not legal advice. A program made it from the settings of one training and the record of "
    "spent privacy. It knows neither the law that applies to you nor what else you do. What stands in [brackets] is "
    "for you to write; have the rest checked by somebody who answers for it."
)
_MARKS = re.compile(r"([\\`*\[\]<>|~&]|(?<![^\W_])_|_(?![^\W_]))")  # within a word an underscore means itself


def as_html(document: Document) -> str:
    """One page with everything in it: no script, no reference to anything outside."""
    return _environment().get_template("documents/document.html.j2").render(document=document, draft_notice=DRAFT)


def as_markdown(document: Document) -> str:
    """The same as Markdown."""
    text = _environment().get_template("documents/document.md.j2").render(document=document, draft_notice=DRAFT)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def as_json(document: Document) -> str:
    """The same as one JSON object."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "document": document.kind,
        "title": document.title,
        "draft": document.draft,
        "notice": DRAFT if document.draft else None,
        "lead": plain(document.lead),
        "made": {"on": document.on.isoformat(), "by": f"coterie {__version__}"},
        "about": document.about,
        "to_fill_in": list(document.to_fill_in),
        "sections": [_section(one) for one in document.sections],
        **document.extra,
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@cache
def _environment() -> Environment:
    """The templates of reports, with what writes a text."""
    environment = templates().overlay()
    environment.filters = {**environment.filters, "html": html, "markdown": markdown}
    return environment


def html(text: Text) -> Markup:
    """A text as HTML; of its pieces none is read as markup.

    >>> html(("a < b ", Strong("c"), Blank("who")))
    Markup('a &lt; b <strong>c</strong><mark>[who]</mark>')
    """
    return Markup("").join(_tagged(piece) for piece in text)


def markdown(text: Text) -> str:
    r"""A text as Markdown on one line; blanks stand out.

    >>> print(markdown(("a|b ", Code("x_y"), " ", Blank("who"))))
    a\|b `x_y` **[who]**
    """
    return "".join(_marked(piece) for piece in text)


def _tagged(piece: Any) -> Markup:
    tag = {Blank: "mark", Code: "code", Strong: "strong", Note: "small"}.get(type(piece))
    shown = piece.text if isinstance(piece, Note) else str(piece)
    return escape(shown) if tag is None else Markup("<{0}>{1}</{0}>").format(tag, shown)


def _marked(piece: Any) -> str:
    text = re.sub(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", " ", str(piece))
    if isinstance(piece, Blank):
        return f"**[{escaped(text[1:-1])}]**"
    if isinstance(piece, Strong):
        return f"**{escaped(text)}**"
    if isinstance(piece, Code) and "`" not in text and "|" not in text:
        return f"`{text}`"
    return escaped(text)


def escaped(text: str) -> str:
    r"""A text that Markdown shows as it is.

    >>> print(escaped("<b> a|b"))
    \<b\> a\|b
    """
    return _MARKS.sub(r"\\\1", text)


def _section(section: Section) -> dict[str, Any]:
    return {
        "key": section.key,
        "title": section.title,
        "text": [plain(text) for text in section.text],
        "fields": [_field(one) for one in section.fields],
        "points": [plain(text) for text in section.points],
        "tables": [_table(one) for one in section.tables],
    }


def _field(one: Field) -> dict[str, Any]:
    return {
        "key": one.key,
        "label": one.label,
        "status": one.status,
        "text": plain(one.text),
        "value": one.value,
        "source": one.source or None,
    }


def _table(table: Table) -> dict[str, Any]:
    rows = [[plain(cell) for cell in row] for row in table.rows]
    return {"caption": table.caption, "columns": list(table.columns), "rows": rows}
