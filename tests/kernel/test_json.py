"""What the JSON functions promise: nothing unfit gets in, nothing fit is kept out, nothing is changed in place."""

import json
import math
from copy import deepcopy
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import StateError
from service.kernel.json import append_at, canonical, check, digest, fingerprint, merge_patch

MIB = 1024 * 1024
HIGH, LOW = r"\ud83d", r"\ude00"

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["\\u0000", "\\", '"', "\\ud800", "[" * 120, "9" * 25, "1e999", "😀", "~/", "0"]
)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | text
finite = scalars.filter(lambda value: value not in (math.inf, -math.inf))
values = st.recursive(finite, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4))
keys = st.sampled_from(["a", "b", "c"])  # few, so that patches and targets meet
documents = st.recursive(
    st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(keys, inner, max_size=3) | st.lists(inner, max_size=3),
)


def nested(depth: int, innermost: str = "0") -> str:
    return "[" * depth + innermost + "]" * depth


def refusal(body: bytes, **limits: int) -> str:
    with pytest.raises(StateError) as caught:
        check(body, **limits)
    assert caught.value.code == "request/json"
    return caught.value.detail


ACCEPTED = {
    "nothing": "",
    "a scalar": "1",
    "an object": '{"a": [1, 2.5, -3e-2, true, false, null, "x"]}',
    "duplicate keys": '{"a": 1, "a": 2}',
    "characters beyond ASCII": '{"ключ": "naïve 😀"}',
    "the deepest nesting": nested(100),
    "the deepest mixed nesting": '{"a":[' * 50 + "]}" * 50,
    "many brackets side by side": "[" + ",".join(["[]", "{}"] * 200) + "]",
    "brackets in a string": '["' + "[{" * 200 + '"]',
    "brackets after an escaped quote": '["' + '\\"[' * 200 + '"]',
    "brackets after an escaped backslash": '["\\\\",["' + "[" * 200 + '"]]',
    "brackets in a key": '{"' + "[" * 200 + '": 1}',
    "an escaped backslash, then u0000": r'["\\u0000"]',
    "two escaped backslashes, then u0000": r'["\\\\u0000"]',
    "an escaped backslash, then ud800": r'["\\ud800"]',
    "the escape after NUL": r'["\u0001"]',
    "an escape that begins as NUL": r'["\u00001"]'.replace("0000", "0010"),
    "a surrogate pair": f'["{HIGH}{LOW}"]',
    "a surrogate pair in capitals": r'["\uD83D\uDE00"]',
    "two surrogate pairs": f'["{HIGH}{LOW}{HIGH}{LOW}"]',
    "a pair after an escaped backslash": rf'["\\{HIGH}{LOW}"]',
    "half a pair spelled out": rf'["\\{HIGH}"]'.replace(r"\\\u", r"\\u"),
    "the last plain characters beside the surrogates": r'["\ud7ff\ue000"]',
    "the largest integer": "9223372036854775807",
    "the smallest integer": "-9223372036854775808",
    "nanoseconds": '{"at":1732104240000000000}',
    "digits in a string": '["1234567890123456789012345", "1e999", "-99999999999999999999"]',
    "digits in a key": '{"1234567890123456789012345":1}',
    "digits around a string": '{"a":123456789012,"b":123456789012}',
    "a long fraction": "0.1234567890123456789012345",
    "a long float": "12345678901234567890.5",
    "a long mantissa with an exponent": "12345678901234567890e0",
    "the largest float": "[1.7976931348623157e308, -1.7976931348623157E+308]",
    "zero with a large exponent": "[0e999, 0.0E+0999]",
    "a small exponent with zeros before it": "1e0000001",
    "underflow": "[1e-999, -1E-0999]",
    "a tiny mantissa with a large exponent": "0." + "0" * 400 + "1e500",
    "a hex digest that looks like a number": '["3e456789", "12e99999"]',
    "a UUID that looks like a number": '["0192f00d-40e1-7123-9e45-30e123456789", "0192-1234-7e00-800"]',
}


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_fit_body_is_accepted(body: str) -> None:
    check(body.encode())


REFUSED = {
    "a byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "Latin-1": ("é".encode("latin-1"), "not UTF-8 at byte 0"),
    "a truncated character": (b'["\xf0\x9f\x98"]', "not UTF-8 at byte 2"),
    "an overlong slash": (b'["\xc0\xaf"]', "not UTF-8"),
    "a surrogate in UTF-8": (b'["\xed\xa0\x80"]', "not UTF-8"),
    "past the last code point": (b'["\xf4\x90\x80\x80"]', "not UTF-8"),
    "UTF-16": ('{"a":1}'.encode("utf-16-le"), "NUL byte"),
    "one level too deep": (nested(101).encode(), "deeper than 100"),
    "one level too deep, mixed": (b'{"a":[' * 50 + b"[", "deeper than 100"),
    "deep after brackets in a string": (b'["]]]]","\\"]]",' + b"[" * 100, "deeper than 100"),
    "deep after siblings": (b"[[],[],{}," + b"[" * 100, "deeper than 100"),
    "a raw NUL": (b'["a\0b"]', "NUL byte"),
    "a raw NUL outside a string": (b"[1]\0", "NUL byte"),
    "an escaped NUL": (rb'["a\u0000b"]', "at byte 3"),
    "an escaped NUL in a key": (rb'{"\u0000":1}', "NUL escape"),
    "an escaped NUL after an escaped backslash": (rb'["\\\u0000"]', "at byte 4"),
    "an escaped NUL beyond ASCII": ('["é\\u0000"]'.encode(), "NUL escape"),
    "one above the largest integer": (b"9223372036854775808", "signed 64 bits"),
    "one below the smallest integer": (b"[-9223372036854775809]", "signed 64 bits"),
    "the largest unsigned integer": (b'{"a":{"b":[18446744073709551615]}}', "18446744073709551615"),
    "a long integer": (b"[1" + b"0" * 5000 + b"]", "…"),
    "a long integer after a string of digits": (b'{"99999999999999999999":99999999999999999999}', "signed 64 bits"),
    "a long integer after an escaped quote": (rb'["\"",99999999999999999999]', "signed 64 bits"),
    "infinity": (b"1e999", "too large for a float"),
    "minus infinity": (b"[-1E+999]", "-1E+999"),
    "infinity with a fraction": (b"1.5e309", "too large for a float"),
    "infinity with zeros before the exponent": (b"1e00309", "too large for a float"),
    "infinity just so": (b"1.7976931348623159e308", "too large for a float"),
    "infinity without an exponent": (b"9" * 310 + b".0", "too large for a float"),
    "infinity with a short exponent": (b"9" * 300 + b"e10", "too large for a float"),
    "infinity after a line break": (b'{"a":\n1e400\n}', "too large for a float"),
    "infinity after a comma": (b"[1,1e400]", "too large for a float"),
    "infinity after a tab": (b"[\t-1e400]", "too large for a float"),
    "infinity with a long mantissa": (b"[0." + b"1" * 100 + b"e400]", "too large for a float"),
    "infinity after an id that looks like a number": (b'["0192f00d-40e1-7123-9e45-30e123456789",1e400]', "too large"),
    "infinity after many of them": (b'["' + b"-7e123" * 2_000 + b'",1e400]', "too large for a float"),
}


@pytest.mark.parametrize(("body", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_an_unfit_body_is_refused_and_told_why(body: bytes, told: str) -> None:
    assert told in refusal(body)


LONE = [
    HIGH,
    LOW,
    HIGH.upper().replace("U", "u"),
    LOW + HIGH,
    HIGH + HIGH + LOW,
    HIGH + LOW + LOW,
    HIGH + "x" + LOW,
    HIGH + r"\\" + LOW,
    HIGH + r"\n" + LOW,
    HIGH + r"\\ude00",
    r"\\" + HIGH,
    r"\"" + LOW,
    r"\ud800",
    r"\udbff",
    r"\udc00",
    r"\udfff",
]


@pytest.mark.parametrize("lone", LONE)
@pytest.mark.parametrize("around", ['"{}"', '["{}"]', '{{"{}":1}}', '{{"a":{{"b":["x{}y"]}}}}', '["é","{}"]'])
def test_a_lone_surrogate_is_refused_wherever_it_hides(lone: str, around: str) -> None:
    assert "half a surrogate pair" in refusal(around.format(lone).encode())


def test_the_depth_allowed_is_the_callers() -> None:
    check(b"[[[]]]", max_depth=3)
    assert "deeper than 2 levels" in refusal(b"[[[]]]", max_depth=2)


HOSTILE = {
    "open arrays": b"[" * MIB,
    "open objects": b'{"":' * (MIB // 4),
    "closed arrays": b"]" * MIB,
    "pairs": b"[]" * (MIB // 2),
    "quotes": b'"' * MIB + b"[" * 101,
    "escaped quotes in an open string": b'"' + b'\\"[' * (MIB // 3),
    "backslashes": b"[" * 101 + b"\\" * MIB,
    "backslashes in an open string": b'"' + b"\\" * MIB + b"[" * 101,
    "half escapes": b"\\u" * (MIB // 2),
    "half surrogates": b"\\ud8" * (MIB // 5),
    "digits": b"1" * MIB,
    "a fraction of a megabyte": b"0." + b"1" * MIB,
    "a mantissa of a megabyte": b"1" * MIB + b"e0",
    "an exponent of a megabyte": b"1e" + b"1" * MIB,
    "zeros": b"0" * MIB + b"e0",
    "minus signs": b"-" * MIB + b"1" * 19,
    "exponents": b"1e1" * (MIB // 3) + b"1e111",
    "points": b"1." * (MIB // 2) + b"1" * 19,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_megabyte_is_passed_on_or_refused_and_nothing_else(body: bytes) -> None:
    accepted(body)


def accepted(body: bytes) -> bool:
    try:
        check(body)
    except StateError as refused:
        assert refused.code == "request/json"
        return False
    return True


TRICKY = [
    b'"',
    b"\\",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\\u",
    b"0000",
    b"d800",
    b"dc00",
    b"9" * 19,
    b"e",
    b"-",
    b".",
    b"1",
    b",",
]


@given(st.binary(max_size=64) | st.lists(st.sampled_from([*TRICKY, b"\xff", b"\0", b" "]), max_size=40).map(b"".join))
def test_garbage_is_never_more_than_refused(body: bytes) -> None:
    accepted(body)


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_every_fit_value_is_accepted_however_it_is_written(value: Any, ensure_ascii: bool, indent: int | None) -> None:
    check(json.dumps(value, ensure_ascii=ensure_ascii, indent=indent).encode())


unfit = st.integers(min_value=2**63) | st.integers(max_value=-(2**63) - 1)
unfit_text = st.tuples(text, st.sampled_from(["\0", "\ud800", "\udfff"]), text).map("".join)


@given(values, unfit | unfit_text, st.booleans())
def test_one_unfit_value_among_fit_ones_is_enough(value: Any, bad: Any, first: bool) -> None:
    pair = [bad, value] if first else [value, {"a": bad}]
    assert not accepted(json.dumps(pair).encode())


@settings(max_examples=50)
@given(st.integers(1, 110), st.sampled_from(["0", '"[["', '"\\"]]"', "{}"]))
def test_depth_is_counted_exactly(depth: int, innermost: str) -> None:
    assert accepted(nested(depth, innermost).encode()) == (depth + (innermost == "{}") <= 100)


@given(st.sampled_from("123456789"), st.text("0123456789", max_size=320), st.text("0123456789", min_size=1, max_size=4))
def test_a_float_is_refused_exactly_when_it_is_infinite(first: str, whole: str, exponent: str) -> None:
    number = f"-{first}{whole}e{exponent}"
    assert accepted(f'{{"a":{number}}}'.encode()) == math.isfinite(float(number))


pieces = [
    "\\\\",
    '\\"',
    "\\u0000",
    "\\ud800",
    "\\uDC00",
    "\\u0041",
    "u0000",
    "ud800",
    "[",
    "{",
    "]",
    "9" * 20,
    "e999",
    "é",
]
numbers = ["0", "-1", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1e309", "1E+08", "-1e-999"]
written_strings = st.lists(st.sampled_from(pieces), max_size=5).map(lambda chosen: f'"{"".join(chosen)}"')
written = st.recursive(
    written_strings | st.sampled_from([*numbers, "true", "{}", "[ ]"]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.tuples(written_strings, inner).map(lambda pair: f"{{{pair[0]}:{pair[1]}}}")
    ),
    max_leaves=4,
)


def fit(value: Any, depth: int) -> bool:
    """What `check` must find, told from the decoded value; objects are tuples of pairs."""
    match value:
        case str():
            return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
        case float():
            return math.isfinite(value)
        case int():
            return -(2**63) <= value < 2**63
        case tuple():
            return depth > 0 and all(fit(key, depth) and fit(inner, depth - 1) for key, inner in value)
        case _:
            return depth > 0 and all(fit(inner, depth - 1) for inner in value)


@settings(max_examples=400)
@given(written)
def test_a_body_is_refused_exactly_when_a_value_in_it_is_unfit(body: str) -> None:
    verdict = fit(json.loads(body, object_pairs_hook=tuple), depth=3)
    try:
        check(body.encode(), max_depth=3)
    except StateError:
        assert not verdict
    else:
        assert verdict


def test_the_canonical_form_is_sorted_and_tight_and_utf_8() -> None:
    assert canonical({"b": [1, 1.0, None], "a": {"é": True, "Z": "\n"}}) == (
        '{"a":{"Z":"\\n","é":true},"b":[1,1.0,null]}'.encode()
    )


@given(values)
def test_the_canonical_form_decodes_to_the_same_value(value: Any) -> None:
    assert msgspec.json.decode(canonical(value)) == value


@given(values)
def test_a_digest_ignores_how_a_document_is_written(value: Any) -> None:
    spaced = json.dumps(value, indent=2, sort_keys=True).encode()
    assert digest(spaced) == digest(json.dumps(value, ensure_ascii=False).encode())


def test_a_digest_ignores_key_order_and_escapes() -> None:
    assert digest(rb'{"a":1,"b":"\u00e9"}') == digest('{ "b": "é", "a": 1 }'.encode())


@pytest.mark.parametrize(("one", "other"), [(b"1", b"1.0"), (b"[1,2]", b"[2,1]"), (b"{}", b"[]"), (b'"1"', b"1")])
def test_a_digest_tells_different_documents_apart(one: bytes, other: bytes) -> None:
    assert digest(one) != digest(other)


ALIKE = [
    (),
    (None,),
    ("",),
    (b"",),
    (0,),
    ("0",),
    ("ab", "c"),
    ("a", "bc"),
    (b"ab", "c"),
    ("ab", "c", None),
    (1, 2),
    (12,),
]


def test_a_fingerprint_mistakes_no_parts_for_others() -> None:
    assert len({fingerprint(*parts) for parts in ALIKE}) == len(ALIKE)


def test_a_fingerprint_is_stable() -> None:
    assert fingerprint("POST", b"{}", 7, None) == "ad7a6fa8d0f6a90f81bd5547cf5becd4"


parts = st.lists(st.binary(max_size=4) | text | st.integers(-(2**63), 2**63 - 1) | st.none(), max_size=4)


@given(parts, parts)
def test_fingerprints_are_equal_for_equal_parts_only(one: list[Any], other: list[Any]) -> None:
    assert len(fingerprint(*one)) == 32
    assert (fingerprint(*one) == fingerprint(*other)) == (one == other)


RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_a_merge_patch_does_what_the_rfc_shows(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


def rfc_merge_patch(target: Any, patch: Any) -> Any:
    """The pseudo code of RFC 7396, section 2, word for word; it changes `target`."""
    if isinstance(patch, dict):
        if not isinstance(target, dict):
            target = {}
        for name, value in patch.items():
            if value is None:
                if name in target:
                    del target[name]
            else:
                target[name] = rfc_merge_patch(target.get(name), value)
        return target
    return patch


@given(documents, documents)
def test_a_merge_patch_does_what_the_rfc_says_and_changes_no_argument(target: Any, patch: Any) -> None:
    before = deepcopy((target, patch))
    result = merge_patch(target, patch)
    assert (target, patch) == before
    assert result == rfc_merge_patch(deepcopy(target), deepcopy(patch))


def test_the_deepest_patch_merges() -> None:
    deep = json.loads('{"a":' * 99 + '{"b":1}' + "}" * 99)
    assert merge_patch(deep, deep) == merge_patch(None, deep) == deep


APPENDED = [
    ([], "", [9]),
    ({}, "/a", {"a": [9]}),
    ({}, "/a/b/c", {"a": {"b": {"c": [9]}}}),
    ({"a": [1], "z": 0}, "/a", {"a": [1, 9], "z": 0}),
    ({"a": [{"b": [1]}, 2]}, "/a/0/b", {"a": [{"b": [1, 9]}, 2]}),
    ({"a": [0, {}]}, "/a/1/b", {"a": [0, {"b": [9]}]}),
    ([[1], [2], [3]], "/1", [[1], [2, 9], [3]]),
    ({}, "/", {"": [9]}),
    ({}, "//x", {"": {"x": [9]}}),
    ({}, "/a~1b/m~0n/~01", {"a/b": {"m~n": {"~1": [9]}}}),
    ({}, "/0/-", {"0": {"-": [9]}}),
]


@pytest.mark.parametrize(("state", "path", "result"), APPENDED)
def test_a_value_is_appended_where_the_pointer_leads(state: Any, path: str, result: Any) -> None:
    assert append_at(state, path, 9) == result


NOT_APPENDED: list[tuple[Any, str, str]] = [
    ({}, "", "state/not-an-array"),
    (None, "", "state/not-an-array"),
    ({"a": {}}, "/a", "state/not-an-array"),
    ({"a": None}, "/a", "state/not-an-array"),
    ({"a": "text"}, "/a", "state/not-an-array"),
    ([1.5, True], "/1", "state/not-an-array"),
    (None, "/a", "state/path"),
    ({"a": 1}, "/a/b", "state/path"),
    ({"a": None}, "/a/b", "state/path"),
    ({"a": "text"}, "/a/0", "state/path"),
    ({"a": []}, "/a/0", "state/path"),
    ({"a": [[]]}, "/a/-", "state/path"),
    ({"a": [[], []]}, "/a/01", "state/path"),
    ({"a": [[]]}, "/a/-1", "state/path"),
    ({"a": [[]]}, "/a/٠", "state/path"),
    ({"a": [[]]}, "/a/b/c", "state/path"),
    ({"a": [[]]}, "/a/" + "9" * 5000, "state/path"),
]


@pytest.mark.parametrize(("state", "path", "code"), NOT_APPENDED)
def test_an_append_that_leads_nowhere_names_the_path(state: Any, path: str, code: str) -> None:
    with pytest.raises(StateError) as caught:
        append_at(state, path, 9)
    assert (caught.value.code, caught.value.facts) == (code, {"path": path})


@pytest.mark.parametrize("path", ["a", "a/b", "#/a", "/a~", "/a~2b", "/~/x", "/a" * 101])
def test_a_malformed_pointer_is_listed_as_an_error_of_the_request(path: str) -> None:
    with pytest.raises(StateError) as caught:
        append_at({}, path, 9)
    assert caught.value.code == "request/invalid"
    assert [error["pointer"] for error in caught.value.facts["errors"]] == ["/path"]


def test_the_longest_pointer_is_followed() -> None:
    state = append_at(append_at({}, "/a" * 100, 1), "/a" * 100, 2)
    assert canonical(state) == b'{"a":' * 100 + b"[1,2]" + b"}" * 100


@given(documents, st.lists(st.sampled_from(["a", "b", "c", "0", "1"]), max_size=4), documents)
def test_an_append_never_changes_the_state_it_was_given(state: Any, steps: list[str], value: Any) -> None:
    before = deepcopy((state, value))
    try:
        result = append_at(state, "".join(f"/{step}" for step in steps), value)
    except StateError as refused:
        assert refused.code in {"state/not-an-array", "state/path"}
    else:
        here = result
        for step in steps:
            here = here[int(step)] if isinstance(here, list) else here[step]
        assert here[-1] == value
    assert (state, value) == before
