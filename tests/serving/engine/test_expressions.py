"""Filters and boosts: what they mean, what is refused, and that no text can stop or crash the service."""

import contextlib
import random
import time

import pytest

pytest.importorskip("cel", reason="needs the extra 'serve'")

from coterie.errors import ConfigError, UsageError
from coterie.serving import expressions
from coterie.serving.expressions import DEEPEST, LONGEST, compiled
from coterie.serving.words import Item

MUG = Item(
    "m1",
    "Blue mug",
    price=12.5,
    currency="EUR",
    stock=3,
    language="en",
    group="mugs",
    attributes={"tags": ("vegan", "new"), "margin": 0.4, "fragile": True, "colour": "blue", "price": 99.0, "size": 2},
)
BARE = Item("b1")


@pytest.mark.parametrize(
    ("text", "mug", "bare"),
    [
        ("price < 20", True, False),
        ("price < 20.0 && 'vegan' in tags", True, False),
        ("!(price < 20)", False, False),
        ("price == 12.5 && stock == 3 && currency == 'EUR' && language == 'en' && group == 'mugs'", True, False),
        ("id.startsWith('b')", False, True),
        ("title.contains('mug') || id == 'b1'", True, True),
        ("id == 'b1' || title.contains('mug')", True, True),
        ("fragile", True, False),
        ("!fragile", False, False),
        ("margin > 0.3 ? colour == 'blue' : false", True, False),
        ("stock * 2.0 > 5.0 && double(size) + 1.0 == 3.0", True, False),
        ("tags.exists(t, t.startsWith('n')) && tags.all(t, size(t) > 2)", True, False),
        ("tags.filter(t, t == 'new').size() == 1", True, False),
        ("title.matches('^[A-Z][a-z]+ mug$')", True, False),
        ("tags[0] == 'vegan'", True, False),
        ("'(((' != '[[[' // a comment with ' and (", True, True),
        ("true", True, True),
    ],
)
def test_a_filter_asks_what_the_shop_says_and_no_is_the_answer_where_that_is_missing(text, mug, bare):
    expression = compiled(text, "filter")
    assert (expression.of(MUG), expression.of(BARE)) == (mug, bare)
    assert expression.over([MUG, BARE]).tolist() == [mug, bare]


@pytest.mark.parametrize(
    ("text", "mug", "bare"),
    [
        ("margin > 0.3 ? 1.5 : 1.0", 1.5, 1.0),
        ("2", 2.0, 2.0),
        ("price", 12.5, 1.0),
        ("price * 1000.0", 100.0, 1.0),
        ("-price", 0.0, 1.0),
        ("1.0 / (stock - 3.0)", 100.0, 1.0),
        ("double(size(tags))", 2.0, 1.0),
    ],
)
def test_a_boost_is_a_number_from_0_to_100_and_1_where_something_is_missing(text, mug, bare):
    expression = compiled(text, "boost")
    assert (expression.of(MUG), expression.of(BARE)) == (mug, bare)
    assert expression.over([MUG, BARE]).tolist() == [mug, bare]


def test_what_a_field_is_called_no_attribute_can_be():
    assert compiled("price < 20", "filter").of(Item("a", attributes={"price": 1.0})) is False


def test_true_is_not_one():
    asked = compiled("x == 1.0", "filter")
    items = [Item("a", attributes={"x": True}), Item("b", attributes={"x": 1.0}), Item("c", attributes={"x": True})]
    assert asked.over(items).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("price <", "the filter 'price <' does not parse at character 8: mismatched input"),
        ("a &&& b", "does not parse at character 5: token recognition error"),
        ("a ==\n == b", "does not parse at line 2, character 2"),
        ("", "does not parse"),
        ("'\ud800'", "does not parse"),
        ("a.?b", "does not parse"),
        ("title.beginsWith('a')", "calls 'beginsWith', which is no function"),
        ("title.startswith('a')", "did you mean 'startsWith'?"),
        ("timestamp('2020-01-01T00:00:00Z') > 1", "calls 'timestamp', which is no function"),
        ("tags.map(t, t).size() > 1", "uses 'map', which is not allowed"),
        ("tags.exists(t, tags.exists(u, u == t))", "has a loop ('exists') inside another"),
        ("tags.all (t, [1].filter // x\n (u, u > 0).size() > 1)", "has a loop ('filter') inside another"),
        (r"tags.exists(t, r'\' == t || [1].exists(u, u > 0) || '\\' == t)", "has a loop ('exists') inside another"),
        ("x" * (LONGEST + 1), "has 1,001 characters; at most 1,000 are allowed"),
        ("(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1), "has brackets more than 50 deep"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name_and_place(text, part):
    with pytest.raises(ConfigError) as refused:
        compiled(text, "filter")
    assert part in str(refused.value)
    assert "\n" not in str(refused.value).replace(repr(text)[1:-1], "")


@pytest.mark.parametrize(
    ("kind", "text", "part"),
    [
        ("filter", "price", "the filter 'price' must be true or false, but gives a number"),
        ("filter", "null", "gives nothing"),
        ("filter", "price * 2 > 3.0", "cannot be evaluated: Unsupported operation: float * int"),
        ("filter", "title.matches('(')", "cannot be evaluated"),
        ("filter", "1 / 0 > 0", "division by zero"),
        ("boost", "price > 1", "the boost 'price > 1' must give a number, but gives a truth value"),
        ("boost", "title", "gives a text"),
        ("boost", "0.0 / 0.0", "gives 0 / 0"),
        ("boost", "tags", "gives a list"),
    ],
)
def test_what_fails_for_every_item_that_has_its_fields_is_refused(kind, text, part):
    with pytest.raises(ConfigError) as refused:
        compiled(text, kind).over([BARE, MUG])
    assert part in str(refused.value)


def test_what_fails_for_some_items_is_no_for_these():
    mixed = [Item("a", attributes={"x": "L"}), Item("b", attributes={"x": 3.0}), Item("c")]
    assert compiled("x > 2", "filter").over(mixed).tolist() == [False, True, False]
    assert compiled("x", "boost").over(mixed).tolist() == [1.0, 3.0, 1.0]
    assert compiled("x > 2", "filter").over([]).tolist() == []


def test_what_takes_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(expressions, "SECONDS", 0.0)
    monkeypatch.setattr(expressions, "SECONDS_PER_ITEM", 1e-9)
    items = [Item(f"i{n}", title="a" * 50, price=float(n)) for n in range(50)]
    with pytest.raises(ConfigError, match="takes too long over 50 items"):
        compiled(r"title.matches('\\w{100}') || price < 0", "filter").over(items)


def test_asking_all_items_costs_one_evaluation_for_each_difference():
    items = [Item(f"i{n}", language=("de", "en")[n % 2], attributes={"tags": ("a",) * (n % 3)}) for n in range(60_000)]
    started = time.perf_counter()
    found = compiled("language == 'de' && 'a' in tags", "filter").over(items)
    assert time.perf_counter() - started < 2.0
    assert found.sum() == sum(1 for n in range(60_000) if n % 2 == 0 and n % 3)


PIECES = [
    *(
        "price",
        "title",
        "tags",
        "x",
        "id",
        "true",
        "null",
        "1",
        "2.5",
        "1u",
        "'a'",
        '"b"',
        "r'\\'",
        "b'x'",
        "'''",
        "''",
    ),
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        "?",
        ":",
        "!",
        "-",
        "+",
        "*",
        "/",
        "%",
        "<",
        "<=",
        "==",
        "!=",
        "&&",
        "||",
    ),
    *(
        " in ",
        "size(",
        ".matches('",
        ".exists(t,",
        ".all(t,",
        ".filter(t,",
        ".map(t,",
        "has(x.y)",
        "//",
        "\\",
        "\n",
        "\x00",
    ),
    *("9223372036854775807", "1e308", "é", "\U0001f600", "string(", "int(", "double(", "\ud800", "`", "$", "@"),
]


@pytest.mark.parametrize("seed", range(8))
def test_no_text_crashes_or_hangs(seed):
    draw = random.Random(seed)
    until = time.perf_counter() + 0.6
    asked = refused = 0
    while time.perf_counter() < until:
        pieces = draw.choices(PIECES, k=draw.randint(1, 40))
        text = "".join(pieces) if draw.random() < 0.5 else " ".join(pieces)
        started = time.perf_counter()
        for kind in ("filter", "boost"):
            try:
                expression = compiled(text[: LONGEST + 5], kind)
                expression.of(MUG)
                expression.over([MUG, BARE])
            except UsageError:
                refused += 1
        assert time.perf_counter() - started < 2.0, text
        asked += 1
    assert asked > 50
    assert 0 < refused < 2 * asked


@pytest.mark.parametrize(
    "text",
    [
        "!" * 999 + "x",
        "-" * 999 + "1",
        "- " * 499 + "1",
        "1" + "+1" * 499,
        "x" + ".y" * 499,
        "x" + "[0]" * 333,
        "x" + "<x" * 499,
        "x" + "&&x" * 333,
        "x?1:" * 249 + "1",
        "(x?" * 40 + "1" + ":0)" * 40,
        "!(" * DEEPEST + "x" + ")" * DEEPEST,
        "[" * DEEPEST + "1" + "]" * DEEPEST,
        "{1:" * DEEPEST + "1" + "}" * DEEPEST,
        "size(" * DEEPEST + "x" + ")" * DEEPEST,
        "[" + "1," * 480 + "1].exists(t, t in [" + "2," * 5 + "3])",
        "title.matches('" + "(a{1,99}){1,99}" * 5 + "')",
        "title.matches('" + "(a+)+" * 50 + "$')",
        "x" * LONGEST,
        "'" * 999,
        '"\\' * 499,
    ],
)
def test_extreme_texts_are_answered_at_once(text):
    started = time.perf_counter()
    for one in (MUG, BARE, Item("c", title="a" * 500, attributes={"x": True})):
        with contextlib.suppress(UsageError):
            compiled(text, "filter").over([one])
    assert time.perf_counter() - started < 2.0
