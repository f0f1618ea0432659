"""The contract, the API reference and the problem types, over HTTP."""

import functools
import re
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import msgspec

from service.errors import CODES, StateError
from service.http.answer import Answer, Header
from service.http.endpoint import PUBLIC, Call, Endpoint
from service.http.remedies import REMEDIES

HTML = (b"content-type", b"text/html; charset=utf-8")
POLICY = b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
SECURE: tuple[Header, ...] = (
    (b"content-security-policy", POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
FRESH = (b"cache-control", b"no-cache")
"""May be kept, must be asked for: the page and its parts change with the version."""
FILES = {
    "docs.css": b"text/css; charset=utf-8",
    "docs.js": b"text/javascript; charset=utf-8",
    "icon.svg": b"image/svg+xml",
}


class ProblemType(msgspec.Struct, frozen=True):
    """What a code means, and what to do about it."""

    type: str
    code: str
    status: int
    title: str
    remedy: str


@functools.cache
def page_file(name: str) -> bytes:
    """A file of this package."""
    return files(__package__).joinpath(name).read_bytes()


@functools.cache
def contract_bytes() -> bytes:
    """The contract, built once in a process."""
    from service.http import contract  # the contract reads every capability's endpoints, and this is one of them

    return msgspec.json.encode(contract.document())


async def contract(_call: Call) -> Answer:
    """This API as an OpenAPI 3.1 document."""
    return Answer(200, contract_bytes(), ((b"content-type", b"application/json"), FRESH))


async def docs(call: Call) -> Answer:
    """A page that shows this API and lets it be tried. Where `docs` is switched off, nothing is here."""
    if not call.services.settings.docs:
        raise StateError("request/route", "The API reference is switched off here; see /openapi.json.")
    return Answer(200, page_file("docs.html"), (HTML, FRESH, *SECURE))


async def part(call: Call) -> Answer:
    """A style sheet, script or picture of the pages."""
    name = call.path["file"]
    if name not in FILES:
        raise StateError("request/route", "The pages have no such file.")
    return Answer(200, page_file(name), ((b"content-type", FILES[name]), FRESH, *SECURE))


def problem_type(code: str) -> ProblemType:
    """The type of problem that a code names."""
    if code not in CODES:
        raise StateError("not-found", f"There is no problem {code!r}; the codes are listed in /openapi.json.")
    status, title = CODES[code]
    return ProblemType(f"/problems/{code}", code, status, title, REMEDIES.get(code, ""))


def marked(text: str) -> str:
    """Text as HTML, what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


async def problem(call: Call) -> ProblemType | Answer:
    """What a problem's code means and what to do about it: for programs, or (Accept: text/html) for people."""
    found = problem_type("/".join(call.path.values()))
    if b"text/html" not in call.headers.get(b"accept", b""):
        return found
    words = {name: marked(str(value)) for name, value in msgspec.structs.asdict(found).items()}
    text = Template(page_file("problem.html").decode()).substitute(words)
    return Answer(200, text.encode(), (HTML, FRESH, (b"vary", b"accept"), *SECURE))


ENDPOINTS = [
    Endpoint(
        "GET", "/openapi.json", "getContract", PUBLIC, "This document", contract, reply=dict[str, Any], writes=False,
    ),
    Endpoint("GET", "/docs", "getDocs", PUBLIC, "The API reference for people", docs, writes=False, media="text/html"),
    Endpoint(
        "GET", "/pages/{file}", "getPagePart", PUBLIC, "A part of a page", part, writes=False, media="text/css",
        errors=("request/route",),
    ),
    Endpoint(
        "GET", "/problems/{name}", "getPlainProblem", PUBLIC, "What a problem without a group means", problem,
        reply=ProblemType, writes=False, errors=("not-found",),
    ),
    Endpoint(
        "GET", "/problems/{group}/{name}", "getProblem", PUBLIC, "What a problem means and what to do", problem,
        reply=ProblemType, writes=False, errors=("not-found",),
    ),
]  # fmt: skip
