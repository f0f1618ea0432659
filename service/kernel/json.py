"""JSON as the service takes it, names it and changes it: pure functions over bytes and decoded values.

`check` comes before any decoding: msgspec lets invalid UTF-8, `\\u0000`, any depth and any number through inside
`msgspec.Raw`, and answers deep nesting with a `RecursionError`. Whatever passes `check` is safe to decode, to store as
text and to hand to the other functions here; whether it is JSON at all is for the decoder to say.
"""

import re
from hashlib import blake2b, sha256
from typing import Any, Never

from msgspec import json, msgpack

from service.errors import StateError, invalid

_BOM = b"\xef\xbb\xbf"
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_POINTER_MAX = 100  # steps of a pointer, for it may create as many objects

# A body seen through _SHAPE, and the least in it that can leave the range of a number.
_SHAPE = bytes.maketrans(b"123456789E{", b"000000000e[")
_DIGITS, _EXPONENT, _BEFORE = b"0" * 19, b"0e000", b" \t\r\n[,:"
_LOOKS, _NEAR = 1_000, 40
# A body reduced to its quotes and to its brackets as signed bytes.
_STEPS, _NOT_STEPS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff"), bytes(c for c in range(256) if c not in b'[]{}"')

# Possessive, and always matching at a quote, closed or not: one pass whatever is sent. For text without escaped quotes.
_STRING = re.compile(rb'"[^"]*+"?+')
_HIGH, _LOW = rb"\\u[dD][89abAB]..", rb"\\u[dD][c-fC-F]"
_BAD_ESCAPE = re.compile(
    rb"\\u(?:0000|[dD](?:[89abAB]..(?!" + _LOW + rb")|[c-fC-F](?<!" + _HIGH + _LOW + rb")))", re.DOTALL
)
# A number that may be out of range; it starts where a token starts, so that no digit is looked at twice.
_SUSPECT = re.compile(
    rb"(?<![-+.0-9eE])-?+(?=[0-9]{19}|[0-9.]++[eE]\+?+[0-9]{3})"
    rb"(?P<whole>[0-9]++)(?P<rest>(?:\.[0-9]++)?+(?:[eE][-+]?+[0-9]++)?+)"
)
_TILDE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")

_encoder = json.Encoder(order="sorted")


def check(body: bytes, max_depth: int = 100) -> None:
    """Refuse (`request/json`) a body that is unfit to decode or to store, in opaque parts as anywhere else.

    Unfit are: a byte order mark, invalid UTF-8, NUL, lone surrogates, more than `max_depth` open brackets, integers
    outside signed 64 bits and numbers that are infinite as a float. An integer is a number without `.`, `e` or `E`.
    Linear in the body, and nearly free for a small ASCII one: the exact tests run only where a cheap one is suspicious.
    """
    if not body.isascii():
        _check_utf8(body)
    if 0 in body:
        _refuse("The body holds a NUL byte; leave it out.")
    if 0x5C in body and b"\\u" in body:  # a byte is found faster as a number
        _check_escapes(body)
    shape = body.translate(_SHAPE, b"+")
    if shape.count(b"[") > max_depth:
        _check_depth(body, max_depth)
    if shape.find(_DIGITS) >= 0 or _may_overflow(shape):
        _check_numbers(body)


def _refuse(detail: str) -> Never:
    raise StateError("request/json", detail)


def _check_utf8(body: bytes) -> None:
    if body.startswith(_BOM):
        _refuse("The body begins with a byte order mark; send UTF-8 without one.")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        at = error.start
    else:
        return
    _refuse(f"The body is not UTF-8 at byte {at}; encode it as UTF-8.")


def _check_escapes(body: bytes) -> None:
    """Escaped backslashes become blanks first, so that every backslash left begins an escape."""
    found = _BAD_ESCAPE.search(body.replace(b"\\\\", b"  "))
    if not found:
        return
    if found[0] == b"\\u0000":
        _refuse(f"The body holds the NUL escape \\u0000 at byte {found.start()}; leave it out.")
    _refuse(f"The body holds half a surrogate pair at byte {found.start()}; send the whole pair or the character.")


def _check_depth(body: bytes, max_depth: int) -> None:
    """Exact up to the first syntax error, where the decoder stops as well."""
    depth = 0
    steps = _without_escapes(body).translate(_STEPS, _NOT_STEPS).replace(b'""', b"")
    for step in memoryview(_STRING.sub(b"", steps)).cast("b"):
        depth += step
        if depth > max_depth:
            _refuse(f"The body is nested deeper than {max_depth} levels; flatten it.")


def _may_overflow(shape: bytes) -> bool:
    """Whether a number may have an exponent of three digits. A UUID often seems to, but for what stands before it."""
    at = shape.find(_EXPONENT)
    for _ in range(_LOOKS):
        if at < 0:
            return False
        before = shape[max(0, at - _NEAR) : at].rstrip(b"0.-")
        if not before or before[-1] in _BEFORE:
            return True
        at = shape.find(_EXPONENT, at + 1)
    return True


def _check_numbers(body: bytes) -> None:
    for number in _SUSPECT.finditer(_STRING.sub(b'"', _without_escapes(body))):
        if number["rest"]:
            if abs(float(number[0])) == float("inf"):
                _refuse(f"The number {_shown(number[0])} is too large for a float; send it as a string.")
        elif len(number["whole"]) > 19 or not _INT_MIN <= int(number[0]) <= _INT_MAX:
            _refuse(f"The integer {_shown(number[0])} does not fit in signed 64 bits; send it as a string.")


def _without_escapes(body: bytes) -> bytes:
    """The body with every quote left in it the beginning or the end of a string."""
    return body.replace(b"\\\\", b"").replace(b'\\"', b"") if 0x5C in body else body


def _shown(number: bytes) -> str:
    text = number[:40].decode()
    return text if len(number) <= 40 else f"{text}…"


def canonical(value: Any) -> bytes:
    """The one JSON text of a decoded value: keys sorted by code point, no spaces, UTF-8 rather than escapes."""
    return _encoder.encode(value)


def digest(raw: bytes) -> str:
    """The sha256, in hex, of the canonical form of checked JSON: what two equal documents share.

    Key order, spaces and the way a character or a float is written make no difference; 1 and 1.0 differ. Of a
    duplicate key the last value counts. Raises `msgspec.DecodeError` where `raw` is not JSON.
    """
    return sha256(canonical(json.decode(raw))).hexdigest()


def fingerprint(*parts: bytes | str | int | None) -> str:
    """32 hex digits that recognise a repeated request: equal for equal parts only.

    The parts are hashed as a MessagePack array, so each carries its type and length: `("ab", "c")`, `("a", "bc")`,
    `(b"ab", "c")` and `("ab", "c", None)` all differ. Integers must fit in 64 bits.
    """
    return blake2b(msgpack.encode(parts), digest_size=16).hexdigest()


def merge_patch(target: Any, patch: Any, *, in_place: bool = False) -> Any:
    """`target` after the JSON Merge Patch `patch` (RFC 7396): null removes, objects merge, all else replaces.

    Neither argument is changed, but `target` if it is to be `in_place`; the result shares with them whatever the patch
    leaves alone or brings whole.
    """
    if not isinstance(patch, dict):
        return patch
    merged = (target if in_place else dict(target)) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value, in_place=in_place)
    return merged


def parts(document: bytes) -> int:
    """How many objects and lists JSON has, or more: brackets in its texts are counted as well."""
    return document.count(b"{") + document.count(b"[")


def append_at(state: Any, path: str, value: Any) -> Any:
    """`state` with `value` appended to the array at the JSON pointer `path` (RFC 6901); `state` is not changed.

    A missing array is created, and so are missing objects above it; array indexes must exist, and null is not missing.
    Refuses with `state/not-an-array`, `state/path`, or `request/invalid` for a pointer malformed or over 100 steps.
    """
    return _appended(state, _steps(path), 0, path, value)


def _steps(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise invalid([("/path", f"{path!r} is not a JSON pointer: it must be empty or begin with '/'.")])
    if _TILDE.search(path):
        raise invalid([("/path", f"{path!r} is not a JSON pointer: write '~' as '~0' and '/' as '~1'.")])
    if path.count("/") > _POINTER_MAX:
        raise invalid([("/path", f"The pointer has {path.count('/')} steps; {_POINTER_MAX} are allowed.")])
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _appended(here: Any, steps: list[str], at: int, path: str, value: Any) -> Any:
    """`here`, reached by `steps[:at]`, copied along the rest of the way."""
    if at == len(steps):
        if not isinstance(here, list):
            detail = f"At {path!r} there is {_kind(here)}, not an array; append to an array or to a new path."
            raise StateError("state/not-an-array", detail, path=path)
        return [*here, value]
    if isinstance(here, dict):
        child = here.get(steps[at], [] if at + 1 == len(steps) else {})
        return {**here, steps[at]: _appended(child, steps, at + 1, path, value)}
    index = _index(here, steps[at], path)
    return [*here[:index], _appended(here[index], steps, at + 1, path, value), *here[index + 1 :]]


def _index(here: Any, step: str, path: str) -> int:
    if not isinstance(here, list):
        detail = f"The path {path!r} leads through {_kind(here)} at {step!r}; only objects and arrays have members."
        raise StateError("state/path", detail, path=path)
    if not _INDEX.fullmatch(step) or int(step) >= len(here):
        detail = f"The path {path!r} asks for {step!r} of an array of {len(here)}; name an index that exists."
        raise StateError("state/path", detail, path=path)
    return int(step)


def _kind(value: Any) -> str:
    kinds = {type(None): "null", bool: "a boolean", str: "a string", dict: "an object"}
    return kinds.get(type(value), "a number")
