"""GTIN and ISBN in one form: published examples, each way of writing, and what must not be taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.federation.identifiers import check_digit, standard_identifier


@pytest.mark.parametrize(
    ("written", "standard"),
    [
        ("4006381333931", "04006381333931"),  # EAN-13: Wikipedia's article on it
        ("73513537", "00000073513537"),  # EAN-8: the same
        ("036000291452", "00036000291452"),  # UPC-A: the same
        ("04252614", "00042100005264"),  # UPC-E: 0 42100 00526 4
        ("00012345600012", "00012345600012"),  # GTIN-14
        ("10614141000415", "10614141000415"),  # GTIN-14 of a case: GS1's example, not the same as the piece
        ("0306406152", "09780306406157"),  # ISBN-10: its user manual
        ("9780306406157", "09780306406157"),
        ("080442957X", "09780804429573"),  # ISBN-10 with X
        ("080442957x", "09780804429573"),
    ],
)
def test_published_numbers(written: str, standard: str) -> None:
    assert standard_identifier(written) == standard


@pytest.mark.parametrize(
    "written",
    [
        "ISBN 0-306-40615-2",
        "ISBN-10: 0-306-40615-2",
        "ISBN 10: 0306406152",
        "isbn13 978-0-306-40615-7",
        "urn:isbn:9780306406157",
        " 978 0 306 40615 7\t",
        "978‐0‐306‐40615‐7",
        "９７８０３０６４０６１５７",
        "EAN:9780306406157",
        "09780306406157",
        "306406152",  # a spreadsheet took the zero
    ],
)
def test_one_book_written_in_many_ways(written: str) -> None:
    assert standard_identifier(written) == "09780306406157"


def test_a_zero_lost_from_a_upc_comes_back() -> None:
    assert standard_identifier("36000291452") == "00036000291452"


@pytest.mark.parametrize(
    "digits", ["4006381333931", "73513537", "036000291452", "10614141000415", "0306406152", "080442957X"]
)
def test_one_wrong_digit_is_noticed(digits: str) -> None:
    for at, right in enumerate(digits):
        for wrong in set("0123456789") - {right}:
            altered = digits[:at] + wrong + digits[at + 1 :]
            assert standard_identifier(altered) != standard_identifier(digits), altered
            if altered[0] != "0" or len(altered) != 8:  # eight digits after 0 are a UPC-E, whose zeros are elsewhere
                assert standard_identifier(altered) is None, altered


@pytest.mark.parametrize(
    "own",
    [
        "200000000000",  # inside a company
        "020000000000",  # by weight, as EAN-13
        "20000000000",  # the same as UPC-A
        "040000000000",  # inside a company, as UPC-A
        "050000000000",  # coupon
        "980000000000",  # receipt
        "991234567890",  # coupon
        "2000000",  # inside a company, of eight digits
        "1200000000000",  # a case of what a company numbers itself
    ],
)
def test_numbers_that_a_shop_gives_out_itself_are_not_shared(own: str) -> None:
    assert standard_identifier(own + check_digit(own)) is None


@pytest.mark.parametrize("length", [8, 9, 10, 11, 12, 13, 14])
def test_zeros_are_nothing_although_their_check_digit_is_right(length: int) -> None:
    assert standard_identifier("0" * length) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "SKU-4006381333931-B",
        "4.00638E+12",
        "4006381333931.0",
        "40063813339310000",
        "X306406152",
        "0" * 10_000,
        "1234567",
        "ISBN",
        "-4006381333931-5",
        "٤٠٠٦٣٨١٣٣٣٩٣١",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert standard_identifier(text) is None


@given(st.text(max_size=80))
def test_any_text_gives_fourteen_checked_digits_or_nothing(text: str) -> None:
    found = standard_identifier(text)
    if found is not None:
        assert len(found) == 14
        assert found.isascii()
        assert found.isdigit()
        assert check_digit(found[:-1]) == found[-1]
        assert standard_identifier(found) == found


@given(st.from_regex(r"[3-9][0-9]{11}", fullmatch=True).filter(lambda digits: not digits.startswith(("98", "99"))))
def test_the_standard_form_is_reached_from_every_length(digits: str) -> None:
    ean = digits + check_digit(digits)
    assert standard_identifier(ean) == standard_identifier("0" + ean) == "0" + ean
