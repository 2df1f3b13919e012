"""Quantities: the text upstream answers, exact arithmetic, refusals."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastkube.api import quantity
from fastkube.api.quantity import QuantityError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("0Gi", "0"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("0.5", "500m"),
        ("0.001", "1m"),
        ("1000m", "1"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("8Gi", "8Gi"),
        ("0.5Gi", "512Mi"),
        ("1.5Gi", "1536Mi"),
        ("512Ki", "512Ki"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("0.0001Ki", "102400u"),
        ("1e3", "1e3"),
        ("1000e3", "1e6"),
        ("12e1", "120"),
        ("1E", "1E"),
        ("1E3", "1E3"),
        ("5M", "5M"),
        ("5000M", "5G"),
        ("+5", "+5"),
        ("1.500", "1.500"),
        ("100n", "100n"),
        ("0.1n", "1n"),
        ("12345678901234567890", "12345678901234567890"),
        ("-1.5Gi", "-1536Mi"),
        ("16Ei", "9223372036854775807"),
        (" 1Gi ", "1Gi"),
        (".5", "500m"),
        ("1.", "1."),
    ],
)
def test_the_text_of_a_quantity(text, expected):
    assert quantity.canonical(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100n", "1m"),
        ("-100n", "-1m"),
        ("1.0000000001Gi", "1073741824108m"),
        ("1.5", "1500m"),
        ("+5", "+5"),
        ("1Gi", "1Gi"),
        ("1500u", "2m"),
    ],
)
def test_resource_lists_hold_whole_millis(text, expected):
    assert quantity.canonical_milli(text) == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", quantity.FORMAT_FAULT),
        ("abc", quantity.FORMAT_FAULT),
        ("1 Gi", quantity.FORMAT_FAULT),
        ("1.2.3", quantity.FORMAT_FAULT),
        ("١", quantity.FORMAT_FAULT),
        ("1Mi1", quantity.SUFFIX_FAULT),
        ("1K", quantity.SUFFIX_FAULT),
        ("1e", quantity.SUFFIX_FAULT),
        ("1e1000000000", quantity.SUFFIX_FAULT),
        ("1e-99999999999999999999", quantity.SUFFIX_FAULT),
        ("9" * 5000, quantity.NUMBER_FAULT),
    ],
)
def test_what_is_no_quantity(text, fault):
    for function in (quantity.parse, quantity.canonical, quantity.canonical_milli):
        with pytest.raises(QuantityError, match=re.escape(fault)):
            function(text)


def test_numbers_round_up_away_from_zero():
    assert quantity.milli("1500m") == 1500
    assert quantity.milli("2") == 2000
    assert quantity.milli("1n") == 1
    assert quantity.value("1500m") == 2
    assert quantity.value("-1500m") == -2
    assert quantity.value("1Gi") == 2**30


def test_arithmetic_keeps_the_format_of_the_first():
    assert quantity.add("1Gi", "512Mi") == "1536Mi"
    assert quantity.add("0", "512Mi") == "512Mi"
    assert quantity.add("1G", "1Gi") == "2073741824"
    assert quantity.sub("2", "500m") == "1500m"
    assert quantity.sub("1", "1") == "0"
    assert quantity.cmp("1Gi", "1G") == 1
    assert quantity.cmp("1000m", "1") == 0
    assert quantity.cmp("-1", "0") == -1


SUFFIXES = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1), "k": Fraction(10**3),
    "M": Fraction(10**6), "G": Fraction(10**9), "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30),
    "e2": Fraction(100), "E-3": Fraction(1, 1000),
}  # fmt: skip
quantities = st.builds(
    "{}{}{}".format, st.sampled_from(["", "-", "+"]), st.from_regex(r"[0-9]{1,6}(\.[0-9]{0,6})?", fullmatch=True),
    st.sampled_from(list(SUFFIXES)),
)  # fmt: skip


def exact(text):
    """A second opinion with fractions: the amount, rounded up to a nano away from zero."""
    suffix = next(each for each in sorted(SUFFIXES, key=len, reverse=True) if text.endswith(each))
    number = Fraction(text.removesuffix(suffix).rstrip(".") or 0) * SUFFIXES[suffix] * 10**9
    rounded = -(-abs(number) // 1)
    return int(rounded if number >= 0 else -rounded)


@given(quantities)
def test_parsing_is_exact(text):
    assert quantity.parse(text).nanos == exact(text)


@given(quantities)
def test_the_canonical_text_is_the_same_amount_and_stays(text):
    once = quantity.canonical(text)
    assert quantity.parse(once).nanos == quantity.parse(text).nanos
    assert quantity.canonical(once) == once
    printed = str(quantity.parse(text))
    assert quantity.parse(printed).nanos == quantity.parse(text).nanos
    assert "." not in printed and "+" not in printed


@given(quantities, quantities)
def test_sums_and_differences_are_exact(left, right):
    total = quantity.add(left, right)
    assert quantity.parse(total).nanos == exact(left) + exact(right)
    assert quantity.cmp(quantity.sub(total, right), left) == 0
    assert quantity.cmp(left, right) == (exact(left) > exact(right)) - (exact(left) < exact(right))


@given(st.text(max_size=12))
def test_any_text_parses_or_is_refused(text):
    try:
        quantity.canonical_milli(text)
    except QuantityError as error:
        assert str(error) in (quantity.FORMAT_FAULT, quantity.SUFFIX_FAULT)
