"""The refusals of an operation, as the contract lists them: those it declares, and those that any may answer."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from service.errors import CODES
from service.http.endpoint import PUBLIC, Endpoint
from service.kernel.principal import PERMITS

PHRASES = {
    400: "Malformed", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 408: "TooSlow", 409: "Conflict",
    412: "VersionMoved", 413: "TooLarge", 414: "TooLong", 415: "NotJson", 422: "Refused", 429: "TooFast",
    431: "HeadersTooLarge", 500: "Failed", 503: "Away", 507: "Full",
}  # fmt: skip
ANY = (
    "request/malformed", "request/too-long", "request/headers", "auth/malformed", "store/unavailable", "store/corrupt",
    "server/busy", "server/error",
)  # fmt: skip
TOKEN = (
    "auth/missing", "auth/invalid", "auth/not-yet", "auth/expired", "auth/revoked", "auth/forbidden",
    "auth/network", "auth/throttled", "auth/busy", "server/draining", "limit/requests-per-second",
    "store/outcome-unknown", "store/full",  # the first use of a token that replaces another, a support read: written
)  # fmt: skip
WRITE = ("tenant/suspended", "tenant/archived")
READ = ("request/too-slow",)
BODY = ("request/json", "request/timeout", "request/too-large", "request/media-type", "request/invalid")


def codes(endpoint: Endpoint) -> list[str]:
    """Every code that the operation may answer, in the order of `CODES`."""
    found = {*endpoint.errors, *ANY}
    if endpoint.permit != PUBLIC:
        found.update(TOKEN)
        found.update(WRITE if endpoint.writes else READ)
    if endpoint.body is not None:
        found.update(BODY)
    if keyed(endpoint):
        found.add("idempotency/mismatch")
    if "support" in PERMITS.get(endpoint.permit, ()):
        found.add("not-found")  # the tenant that an administrator names
    found.update(f"request/{query.name}" for query in endpoint.query if query.name in ("cursor", "filter"))
    return [code for code in CODES if code in found]


def keyed(endpoint: Endpoint) -> bool:
    """Whether the operation knows an Idempotency-Key."""
    return endpoint.writes and endpoint.permit != PUBLIC


class Refusals:
    """Responses by status; the same set of codes is written once, as a component."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.components: dict[str, Any] = {}
        self._names: dict[tuple[str, ...], str] = {}
        uses: dict[tuple[str, ...], int] = defaultdict(int)
        for endpoint in endpoints:
            for group in by_status(codes(endpoint)).values():
                uses[tuple(group)] += 1
        for shared in (group for group, count in uses.items() if count > 3):
            name = self._free(PHRASES.get(CODES[shared[0]][0], "Other"))
            self._names[shared], self.components[name] = name, response(shared)

    def _free(self, name: str) -> str:
        """`name`, or with the first number that is not taken."""
        count = sum(other.rstrip("0123456789") == name for other in self.components)
        return name if not count else f"{name}{count + 1}"

    def of(self, endpoint: Endpoint) -> dict[str, Any]:
        """The refusals of an operation, by status."""
        found = {}
        for status, group in by_status(codes(endpoint)).items():
            name = self._names.get(tuple(group))
            found[str(status)] = {"$ref": f"#/components/responses/{name}"} if name else response(group)
        return found


def by_status(listed: Iterable[str]) -> dict[int, list[str]]:
    """Codes by their status, in order of status."""
    groups: dict[int, list[str]] = defaultdict(list)
    for code in listed:
        groups[CODES[code][0]].append(code)
    return dict(sorted(groups.items()))


def response(listed: Iterable[str]) -> dict[str, Any]:
    """A response that is one of these problems. Its schema is `Problem` by reference, with the codes beside it: a
    generated client has one type for every refusal, and not one for each status of each operation."""
    group = list(listed)
    status = CODES[group[0]][0]
    fits = {"properties": {"code": {"type": "string", "enum": group}, "status": {"type": "integer", "const": status}}}
    schema = {"$ref": "#/components/schemas/Problem", **fits}
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    if status == 401 or {"auth/malformed", "auth/forbidden"} & set(group):
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/WWW-Authenticate"}
    return {
        "description": "\n".join(f"* `{code}`: {CODES[code][1]}." for code in group),
        **({"headers": headers} if headers else {}),
        "content": {"application/problem+json": {"schema": schema, "example": sample(group[0])}},
    }


def sample(code: str) -> dict[str, Any]:
    """A problem document with this code, without the facts of a real one."""
    status, title = CODES[code]
    return {"type": f"/problems/{code}", "title": title, "status": status, "detail": f"{title}.", "code": code}


PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "A refusal (RFC 9457): `detail` for people, `code` and further fields for programs.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "Where the code is explained."},
        "title": {"type": "string", "description": "The code in words; always the same."},
        "status": {"type": "integer", "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What is, what was offered, and what to do next."},
        "code": {"type": "string", "description": "The stable name to branch on."},
        "errors": {
            "type": "array",
            "description": "Everything that is wrong with the body, where that is what was refused.",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "A JSON pointer into the body."},
                    "detail": {"type": "string", "description": "What is wrong there."},
                },
            },
        },
        "retry_after": {"type": "integer", "description": "Seconds to wait, as in `Retry-After`."},
        "request_id": {"type": "string", "description": "Names the request, as `X-Request-Id` and the log do."},
    },
    "additionalProperties": True,
}
HEADERS: dict[str, Any] = {
    "Retry-After": {"description": "Seconds to wait before the request is made again.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "The challenge of RFC 6750.", "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "`true` on the stored answer to a request that was made before with this Idempotency-Key.",
        "schema": {"type": "string", "const": "true"},
    },
    "Holdfast-Token-Expires": {
        "description": "When the token of the request ends (UTC); sent only when that is near.",
        "schema": {"type": "string", "format": "date-time"},
    },
}
