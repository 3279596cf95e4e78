"""Texts that are JSON, that nearly are, and that are not, for Hypothesis."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

MARKS = (b"{", b"}", b"[", b"]", b":", b",", b"{}", b"[]", b'""', b'"a"', b'"a":', b'"a":1,', b'"\\u0061":')
SPACES = (b" ", b"\n", b"\t\r", b"\x0b", b"\xc2\xa0", b"/**/", b"\xef\xbb\xbf", b"\xff\xfe", b"\x00")
WORDS = (b"true", b"false", b"null", b"nul", b"NaN", b"Infinity", b"-Infinity", b"'a'")
NUMBERS = (
    *(b"0", b"-0", b"01", b"1.", b".5", b"-", b"1e5", b"1E+05", b"0.1", b"-0.0", b"1e400", b"-1e999", b"1e-400"),
    *(b"0e999", b"1.7976931348623159e308", b"12345678901234567890", b"1.5e", b"+1", b"0x1", b"9" * 4300, b"9" * 4301),
    *(b"-" + b"9" * 4301, b"0." + b"1" * 5000, b"1" * 400 + b".0"),
)
TEXTS = (
    *(b'"\\ud800"', b'"\\udc00"', b'"\\ud83d\\ude00"', b'"\\ud83d\\ud83d\\ude00"', b'"\\uD83D\\uDE00"', b'"\\ud83dx"'),
    *(b'"\\u12"', b'"\\u+123"', b'"\\u 123"', b'"\\x"', b'"\\', b'"\\b\\f\\n\\r\\t\\/\\\\\\""', b'"\\u0000"'),
    *(b'"\\u007f\x7f"', b'"\x00"', b'"\x1f"', b'"\xff"', b'"\xc3\xa9"', b'"\xc0\x80"', b'"\xed\xa0\x80"'),
    *(b'"\xf0\x9f\x98\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"'),
)
TOKENS = (*MARKS, *SPACES, *WORDS, *NUMBERS, *TEXTS)
"""Also broken ones: bounds of numbers, halves of characters, forms of UTF-8."""

names = st.sampled_from(("a", "b", "", "cniVersion", "é", "\U0001f600", 'quo"te', "back\\slash", "\x7f", "\n"))
texts = names | st.text(st.characters(codec="utf-8"), max_size=8)
integers = st.integers() | st.sampled_from((0, -1, 2**63, 2**64, 10**30))
leaves = st.none() | st.booleans() | integers | texts
exact: st.SearchStrategy[Any] = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
"""Values of which there is one way to be written."""
values = st.recursive(
    leaves | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
styles = st.builds(
    lambda ascii_only, indent, separators: {"ensure_ascii": ascii_only, "indent": indent, "separators": separators},
    st.booleans(), st.sampled_from((None, 0, 1)), st.sampled_from((None, (",", ":"), (" ,", ": "))),
)  # fmt: skip
soups = st.lists(st.sampled_from(TOKENS), max_size=12).map(b"".join)
"""Tokens in any order."""


@st.composite
def changed(draw: st.DrawFn, good: st.SearchStrategy[bytes]) -> bytes:
    """With some bytes taken out, and others put in."""
    text = draw(good)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(start + 4, len(text))) | st.just(start))
        text = text[:start] + draw(st.sampled_from(TOKENS) | st.binary(max_size=2)) + text[end:]
    return text


@st.composite
def objects(draw: st.DrawFn, members: st.SearchStrategy[list[tuple[str, Any]]]) -> bytes:
    """Of members, whose names may come twice."""
    style = draw(styles)
    written = (f"{json.dumps(key, **style)}:{json.dumps(value, **style)}" for key, value in draw(members))
    return ("{" + ", ".join(written) + "}").encode()


documents = st.builds(lambda value, style: json.dumps(value, **style).encode(), values, styles)
doubled = objects(st.lists(st.tuples(texts, values), max_size=5))
anything = documents | doubled | soups | changed(documents) | changed(doubled) | st.binary(max_size=20)
