"""Texts of documents: values stay values, blanks stay blanks, whatever they are written as."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.markdown import Markdown

from coterie.report.documents.rendering import escaped, html, markdown
from coterie.report.documents.words import Blank, Code, Field, Note, Strong, blanks, marked, plain, say

EVIL = '<script>alert("x")</script> [controller] **bold** `code` |'


def test_a_value_is_never_taken_for_markup_or_for_a_blank():
    text = say("{who} has {what}", who=EVIL, what=Blank("what"))
    assert [one.what for one in blanks(text)] == ["what"]
    assert "<script>" not in html(text)
    assert "&lt;script&gt;" in html(text)
    assert html(text).endswith("<mark>[what]</mark>")


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp", "Cs")), min_size=1, max_size=40)
)
def test_markdown_shows_a_text_as_it_is(text):
    (inline,) = [token for token in Markdown(f"x{escaped(text)}x").parsed if token.type == "inline"]
    assert {token.type for token in inline.children} <= {"text", "text_special"}, "no markup came out of it"
    assert "".join(token.content for token in inline.children) == f"x{text}x"


@pytest.mark.parametrize("piece", [Blank("a\nb"), Strong("a\nb"), Code("a\nb"), Code("a`b|c\nd"), "a\r\nb"])
def test_nothing_breaks_a_row_of_a_table(piece):
    shown = markdown((piece,))
    assert "\n" not in shown
    assert "|" not in shown.replace("\\|", "")


def test_pieces_in_each_form():
    text = (*marked("**No** noise on `gram`"), Note("none"))
    assert plain(text) == "No noise on gram (none)"
    assert markdown(text) == "**No** noise on `gram` (none)"
    assert html(text) == "<strong>No</strong> noise on <code>gram</code><small>none</small>"


def test_a_field_knows_whether_it_is_answered():
    assert Field("a", "a", ("not stated",)).status == "not-stated"
    assert Field("a", "a", ("known, but ", Blank("who"))).status == "to-fill-in"
    assert Field("a", "a", ("known",)).status == "stated"
