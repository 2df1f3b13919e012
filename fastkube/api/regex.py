"""Regular expressions as Go has them: RE2's syntax, in linear time whatever the pattern, and Go's words for bad ones.

Python's own `re` takes other syntax, and patterns of clients (of schemas, of CEL rules) could keep it busy for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False

_GO_WORDS = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "unexpected )": "unexpected )",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid repetition size": "invalid repeat count",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid character class range": "invalid character class range",
    "invalid character class": "invalid character class",
    "invalid escape sequence": "invalid escape sequence",
    "invalid named capture group": "invalid named capture",
    "trailing \\": "trailing backslash at end of expression",
    "invalid UTF-8": "invalid UTF-8",
}


class RegexError(ValueError):
    """The pattern is none; the message is Go's."""


class Regex:
    """A compiled pattern.

    Whether a text matches is asked far more often than where. A set of one pattern tells that without looking for the
    place, several times faster; only its "no" is verified, as it may have run out of memory.
    """

    __slots__ = ("_any", "_search", "pattern")

    def __init__(self, pattern: str) -> None:
        try:
            made = re2.compile(pattern, _OPTIONS)
        except re2.error as error:
            raise RegexError(_in_go_words(error.args[0])) from None
        self.pattern = made
        self._search = made.search
        one = re2.Set.SearchSet(_OPTIONS)
        one.Add(pattern)
        one.Compile()
        self._any = one.Match

    def matches(self, text: str) -> bool:
        """Whether it is found anywhere in the text."""
        return self._any(text.encode(errors="surrogatepass")) is not None or self._search(text) is not None

    def find(self, text: str) -> str | None:
        found = self._search(text)
        return found.group() if found is not None else None

    def find_all(self, text: str) -> Iterator[str]:
        return (found.group() for found in self.pattern.finditer(text))


@lru_cache(4096)
def compile(pattern: str) -> Regex:
    """The pattern, compiled once; raises RegexError."""
    return Regex(pattern)


def _in_go_words(told: bytes | str) -> str:
    text = told.decode(errors="replace") if isinstance(told, bytes) else told
    what, _, where = text.partition(": ")
    if what == "trailing \\":
        return f"error parsing regexp: {_GO_WORDS[what]}: ``"
    return f"error parsing regexp: {_GO_WORDS.get(what, what)}: `{where}`"
