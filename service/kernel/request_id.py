"""The id of the request in hand: the caller's `X-Request-Id` if it is well formed, else one of ours.

It is in the answer's header, in every problem and in every log line of the request. A task has its own, so nothing is
passed along.
"""

import itertools
import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar, Token

HEADER = b"x-request-id"
WELL_FORMED = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,64}").fullmatch
"""Shorter than a token, so that one that was sent in the wrong header is not sent back or logged."""
_ours = secrets.token_hex(6).encode()
_numbers = itertools.count(1)
_current: ContextVar[bytes] = ContextVar("request_id", default=b"")


def begin(headers: Iterable[tuple[bytes, bytes]]) -> Token[bytes]:
    """A request with these headers is in hand, until `end`."""
    for name, value in headers:
        if name == HEADER and WELL_FORMED(value):
            return _current.set(value)
    return _current.set(made())


def end(begun: Token[bytes]) -> None:
    """It is no longer in hand."""
    _current.reset(begun)


def made() -> bytes:
    """An id that no other request of any process has."""
    return b"%s-%x" % (_ours, next(_numbers))


def current() -> bytes:
    """The id of the request in hand; empty outside of one."""
    return _current.get()
