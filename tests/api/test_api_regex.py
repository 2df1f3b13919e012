"""Go's regular expressions: what they match, in which time, and how bad ones are told."""

from __future__ import annotations

import pytest

from fastkube.api import regex


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("^[a-z]+$", "abc", True),
        ("^[a-z]+$", "abc\n", False),
        ("b", "abc", True),
        (r"^\d+$", "٣", False),
        (r"^\pL+$", "äß", True),
        ("[[:digit:]]", "a1", True),
        (r"\Qa.b\E", "a.b", True),
        (r"a\z", "ba", True),
        ("(?i)ABC", "xabcx", True),
        ("", "", True),
    ],
)
def test_matches(pattern: str, text: str, matches: bool) -> None:
    assert regex.compile(pattern).matches(text) is matches


def test_hostile_patterns_come_to_an_end() -> None:
    assert not regex.compile("^(a+)+$").matches("a" * 5000 + "b")
    assert regex.compile("^(a|b)*a(a|b){21}$").matches("ab" * 500)


def test_finding() -> None:
    found = regex.compile("[0-9]+")
    assert found.find("a12b3") == "12"
    assert found.find("a") is None
    assert list(found.find_all("a12b3")) == ["12", "3"]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("(", "error parsing regexp: missing closing ): `(`"),
        ("[a", "error parsing regexp: missing closing ]: `[a`"),
        ("a**", "error parsing regexp: invalid nested repetition operator: `**`"),
        ("*", "error parsing regexp: missing argument to repetition operator: `*`"),
        ("(?=a)", "error parsing regexp: invalid or unsupported Perl syntax: `(?=`"),
        ("a{2,1}", "error parsing regexp: invalid repeat count: `{2,1}`"),
        ("[z-a]", "error parsing regexp: invalid character class range: `z-a`"),
        (r"\8", r"error parsing regexp: invalid escape sequence: `\8`"),
        ("a\\", "error parsing regexp: trailing backslash at end of expression: ``"),
    ],
)
def test_bad_patterns(pattern: str, told: str) -> None:
    with pytest.raises(regex.RegexError) as failed:
        regex.compile(pattern)
    assert str(failed.value) == told
