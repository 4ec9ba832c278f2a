"""Markdown of cards and documents as HTML that fits into a page: no markup of its own, headings below the page's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

LOWER_BY = 2  # "# Title" becomes <h3>: below the page's <h1> and the section's <h2>
DEEPEST = 6


def to_html(text: str, lower_by: int = LOWER_BY) -> Markup:
    """The text as HTML. HTML in it is shown as text, links to anything but http(s) and mail are none."""
    parser = _parser()
    tokens = parser.parse(text)
    _caption_tables(tokens)
    _lower_headings(tokens, lower_by)
    _name_rows(tokens)
    return Markup(parser.renderer.render(tokens, parser.options, {}))  # noqa: S704 - the renderer escapes all texts


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "autolink", "html_inline"])
    parser.add_render_rule("table_open", _opened_table)
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


def _opened_table(_: object, tokens: Sequence[Token], at: int, *__: object) -> str:
    """A table scrolls sideways where it has to, also by keyboard, and has a name for those who do not see it."""
    name = escape(tokens[at].meta.get("caption") or "table")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table><caption class="hidden">'
        f"{name}</caption>\n"
    )


def _caption_tables(tokens: Sequence[Token]) -> None:
    """What stands above a table names it: the heading, with a number where there are several below one."""
    heading, count = "", 0
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            heading, count = tokens[at + 1].content, 0
        elif token.type == "table_open":
            count += 1
            token.meta["caption"] = heading if count == 1 else f"{heading} ({count})"


def _lower_headings(tokens: Sequence[Token], by: int) -> None:
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1:]) + by, DEEPEST)}"


def _name_rows(tokens: list[Token]) -> None:
    """The first cell of a table's row names it; a head without words is left out."""
    first = False
    for token in tokens:
        if token.type == "tr_open":
            first = True
        elif token.type == "td_open" and first:
            token.tag, token.attrs = "th", {"scope": "row"}
        elif token.type == "td_close" and first:
            token.tag, first = "th", False
        elif token.type == "th_open":
            token.attrs = {**token.attrs, "scope": "col"}
    _drop_empty_heads(tokens)
    for token in tokens:
        if token.attrs.get("style"):  # a policy refuses inline styles; a class says the same
            aligned = "right" in str(token.attrs.pop("style"))
            if aligned:
                token.attrs["class"] = "n"


def _drop_empty_heads(tokens: list[Token]) -> None:
    at = 0
    while at < len(tokens):
        if tokens[at].type == "thead_open":
            end = next(i for i in range(at, len(tokens)) if tokens[i].type == "thead_close")
            if not any(token.content.strip() for token in tokens[at:end] if token.type == "inline"):
                del tokens[at : end + 1]
                continue
        at += 1
