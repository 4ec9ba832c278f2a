"""Identifiers that companies share: GTIN (EAN, UPC) and ISBN, in one form, with their check digits checked.

The form is GTIN-14: 14 digits, padded with zeros on the left, which leaves the check digit as it is (GS1 General
Specifications, sections 1.4 and 7.9). An ISBN-10 becomes the ISBN-13 of the same book.

Numbers that a shop gives out itself are no shared identifiers, valid as they may be: two shops use the same one for
different things. GS1 keeps ranges for them (variable weights, coupons, numbers inside a company), which are refused.
"""

from __future__ import annotations

import re
import unicodedata

IDENTIFIER_COLUMNS = ("gtin", "gtin13", "gtin14", "ean", "ean13", "upc", "barcode", "isbn13", "isbn10", "isbn")
"""What a column with such identifiers is called, in lower case; the first that is there is taken."""

_LONGEST = 64  # with label and dashes; whatever is longer is none
_DIGITS = 14
_LABEL = re.compile(
    r"(?:urn:)?(?:gtin|ean|upc|isbn)(?:-?(?:8|1[0-4])(?=[\s:])|\s(?:10|13)(?=\s*:))?[\s:]*", re.IGNORECASE
)
_SEPARATORS = re.compile("[\\s\u2010-\u2015\u2212-]")
_WRITTEN = re.compile(r"[0-9]{8}|[0-9]{8,9}[0-9Xx]|[0-9]{11,14}")
_OWN_NUMBERS = re.compile(
    r"\d(?:"  # the digit before is the packaging level
    r"02|04|2"  # weights and prices, numbers inside a company
    r"|05|98|99"  # coupons, receipts
    r"|00000[02])"  # the same among numbers of eight digits
)


def standard_identifier(text: str) -> str | None:
    """The identifier in `text` as 14 digits, or None where it is not a valid one that companies share.

    Dashes, white space and labels such as ``ISBN-13:`` are skipped; 8 digits that begin with 0 are a UPC-E; a UPC of 11
    digits and an ISBN-10 of 9 have lost a zero to a spreadsheet, and get it back.

    >>> standard_identifier("4006381333931")
    '04006381333931'
    >>> standard_identifier("ISBN 0-306-40615-2")
    '09780306406157'
    >>> standard_identifier("4006381333932") is None
    True
    """
    digits = _written(text)
    if not _WRITTEN.fullmatch(digits):
        return None
    if len(digits) in (9, 10):
        return _of_book(digits.upper().zfill(10))
    if len(digits) == 8 and digits[0] == "0":
        digits = _expanded(digits)
    digits = digits.zfill(_DIGITS)
    valid = check_digit(digits[:-1]) == digits[-1] and digits.strip("0") and not _OWN_NUMBERS.match(digits)
    return digits if valid else None


def check_digit(digits: str) -> str:
    """The check digit of a GTIN of any length without it: weights 3, 1, 3, .. from the right, modulo 10.

    >>> check_digit("400638133393")
    '1'
    """
    return str(-sum(int(digit) * (1 + 2 * (at % 2 == 0)) for at, digit in enumerate(reversed(digits))) % 10)


def _written(text: str) -> str:
    """The characters of the identifier alone."""
    if len(text) > _LONGEST:
        return ""
    plain = unicodedata.normalize("NFKC", text).strip()
    label = _LABEL.match(plain)
    return _SEPARATORS.sub("", plain[label.end() :] if label else plain)


def _of_book(isbn: str) -> str | None:
    """An ISBN-10, whose weights 10, 9, .., 1 give a sum that 11 divides, as GTIN-14."""
    weighted = sum((10 - at) * (10 if digit == "X" else int(digit)) for at, digit in enumerate(isbn))
    if weighted % 11 or not isbn.strip("0"):
        return None
    book = f"0978{isbn[:9]}"
    return book + check_digit(book)


def _expanded(upc: str) -> str:
    """The UPC-A of a UPC-E of 8 digits: its last digit but one says where zeros were left out."""
    shown, how, check = upc[1:6], upc[6], upc[7]
    if how in "012":
        middle = f"{shown[:2]}{how}0000{shown[2:]}"
    elif how in "34":
        middle = f"{shown[: int(how)]}00000{shown[int(how) :]}"
    else:
        middle = f"{shown}0000{how}"
    return f"0{middle}{check}"
