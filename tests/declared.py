"""Every refusal that a test is answered is one that the contract announces for that operation."""

import functools
import re
from urllib.parse import urlsplit

import httpx

from service.http.endpoint import Endpoint
from service.http.refusals import codes

NOBODYS = frozenset({"request/route", "request/method"})
"""Of no operation: the request has not come to one."""
OF_WRITES = frozenset({"store/full", "store/outcome-unknown"})
"""What tests have a store say to reads too, which no store says to them."""

CARRIERS = frozenset({"submitCommands", "submitWorkflowTasks"})
"""Operations that carry commands of every capability, each with refusals of its own: they announce the usual ones."""


@functools.cache
def operations() -> list[tuple[str, re.Pattern[str], Endpoint]]:
    """Method, path and endpoint of every operation, those with a part in braces last."""
    from service import capabilities

    found = sorted(capabilities.endpoints(), key=lambda endpoint: "{" in endpoint.path)
    return [(one.method, re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(one.path))), one) for one in found]


@functools.cache
def announced(operation: str) -> frozenset[str]:
    """The codes of an operation."""
    return frozenset(code for *_, one in operations() if one.operation == operation for code in codes(one))


def operation_of(method: str, path: str) -> Endpoint | None:
    """The operation that a request is for."""
    found = (one for its, pattern, one in operations() if its == method and pattern.fullmatch(path))
    return next(found, None)


def refuse_undeclared(method: str, url: str, answer: httpx.Response) -> None:
    """AssertionError for a refusal that the contract does not announce."""
    if answer.headers.get("content-type") != "application/problem+json" or method == "HEAD":
        return
    endpoint, code = operation_of(method, urlsplit(url).path), answer.json()["code"]
    if endpoint is None or code in NOBODYS or (code in OF_WRITES and not endpoint.writes):
        return
    operation = endpoint.operation
    known = operation in CARRIERS or code in announced(operation)
    assert known, f"{operation} answers {code}; its `errors` do not say so"
