"""What can go wrong, as the caller sees it.

Every refusal is a `StateError`: a stable `code`, a sentence that says what is, what was offered and what to do
next, and the facts a program needs. `CODES` is the whole list; the status and the title belong to the code, never
to the raise.

    400 malformed · 401 who are you · 403 not yours to do · 404 not here · 408 too slow · 409 the state says no
    412 version moved · 413 too large · 415 not JSON · 422 understood, refused, every error listed · 429 too fast
    503 store away · 507 full
"""

from typing import Any

CODES: dict[str, tuple[int, str]] = {
    "request/malformed": (400, "The request cannot be read"),
    "request/json": (400, "The body is not acceptable JSON"),
    "request/filter": (400, "The filter cannot be used"),
    "request/cursor": (400, "The cursor is not one of ours"),
    "request/route": (404, "No such route"),
    "request/method": (405, "The route has no such method"),
    "request/timeout": (408, "The request did not come in time"),
    "request/too-long": (414, "The path is too long"),
    "request/headers": (431, "The headers are too large"),
    "request/too-large": (413, "The request is too large"),
    "request/media-type": (415, "The body must be application/json"),
    "request/invalid": (422, "The request is understood and refused"),
    "request/too-slow": (422, "The request takes too long"),
    "auth/missing": (401, "No token was sent"),
    "auth/malformed": (400, "The Authorization header cannot be read"),
    "auth/invalid": (401, "The token is not valid"),
    "auth/not-yet": (401, "The token does not work yet"),
    "auth/expired": (401, "The token has expired"),
    "auth/revoked": (401, "The token was revoked"),
    "auth/forbidden": (403, "The role does not permit this"),
    "auth/queue": (403, "The token may not use this queue"),
    "auth/network": (403, "The token may not be used from there"),
    "auth/throttled": (429, "Too many failed attempts"),
    "auth/busy": (503, "Token verification is busy"),
    "tenant/suspended": (403, "The tenant is suspended"),
    "tenant/archived": (403, "The tenant is archived"),
    "tenant/exists": (409, "The tenant exists already"),
    "not-found": (404, "Not found"),
    "version/mismatch": (412, "The version has moved on"),
    "sequence/mismatch": (409, "The sequence has moved on"),
    "namespace/unknown": (422, "There is no such namespace"),
    "namespace/exists": (409, "The namespace exists already"),
    "namespace/in-use": (409, "Executions of the namespace are open"),
    "namespace/deleting": (409, "The namespace is being deleted"),
    "definition/conflict": (409, "The version is stored with another body"),
    "definition/in-use": (409, "Executions use this version"),
    "definition/invalid": (422, "The definition is not valid"),
    "execution/conflict": (409, "The execution exists with other arguments"),
    "execution/terminal": (409, "The execution has ended"),
    "execution/transition": (409, "The status cannot change so"),
    "state/not-an-array": (409, "The path does not hold an array"),
    "state/path": (409, "The path does not lead anywhere"),
    "snapshot/ahead": (409, "The snapshot is ahead of the log"),
    "lease/stale": (409, "The lease is no longer yours"),
    "lease/not-held": (409, "The item is not leased"),
    "lease/settled": (409, "The item was settled otherwise"),
    "schedule/conflict": (409, "The schedule exists with other arguments"),
    "signal/conflict": (409, "The signal came before with other contents"),
    "workflow/nondeterminism": (409, "The workflow asks for something else than before"),
    "workflow/unseen": (409, "Too much of the log was not seen yet"),
    "work/conflict": (409, "Another item, or a workflow, stands in the way"),
    "work/terminal": (409, "The work item has ended"),
    "dead-letter/settled": (409, "The dead letter was dealt with"),
    "job/ended": (409, "The job has ended"),
    "job/final": (409, "The job cannot be stopped"),
    "import/part": (409, "Another part of the import is next"),
    "import/ended": (409, "The import has ended"),
    "import/unfit": (422, "The import does not fit"),
    "token/conflict": (409, "The token cannot change so"),
    "idempotency/mismatch": (422, "The Idempotency-Key was used for another request"),
    "limit/running-executions": (409, "The limit of running executions is reached"),
    "limit/definitions": (409, "The limit of definitions is reached"),
    "limit/ready-work-items": (409, "The limit of ready work items is reached"),
    "limit/events-per-execution": (409, "The limit of events of an execution is reached"),
    "limit/payload-bytes": (409, "The limit of bytes of a payload is reached"),
    "limit/state-bytes": (409, "The limit of bytes of a state is reached"),
    "limit/tokens": (409, "The limit of tokens is reached"),
    "limit/namespaces": (409, "The limit of namespaces is reached"),
    "limit/workers": (409, "The limit of workers is reached"),
    "limit/requests-per-second": (429, "Too many requests"),
    "store/unavailable": (503, "The store is away"),
    "store/outcome-unknown": (503, "The store went away during the commit"),
    "store/corrupt": (503, "The store is damaged"),
    "store/full": (507, "The store is full"),
    "server/busy": (503, "Too much is waiting"),
    "server/draining": (503, "The server is shutting down"),
    "server/error": (500, "The server failed"),
}


class StateError(Exception):
    """A refusal: `code` is a key of `CODES`, `detail` a sentence, `facts` what a program needs to go on.

    A fact `retry_after` (whole seconds) also becomes the `Retry-After` header; a fact `errors` is a list of
    `{"pointer", "detail"}`, one for each thing wrong.
    """

    def __init__(self, code: str, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.status, self.title = CODES[code]
        self.detail = detail
        self.facts = facts


def not_found(what: str, name: str) -> StateError:
    """404 for `what` called `name`: the same bytes whether it is missing or another tenant's."""
    return StateError("not-found", f"There is no {what} {name!r} here.")


def under(place: str, refusal: StateError) -> StateError:
    """A refusal of a part of the body, which stands at `place`: the pointers of its errors lead into the whole."""
    if "errors" in refusal.facts:
        errors = refusal.facts["errors"]
        refusal.facts["errors"] = [{**one, "pointer": place + one["pointer"]} for one in errors]
    return refusal


def invalid(errors: list[tuple[str, str]]) -> StateError:
    """422 with every error: `errors` are (JSON pointer, sentence) pairs."""
    listed = [{"pointer": pointer, "detail": detail} for pointer, detail in errors]
    count = "1 error" if len(listed) == 1 else f"{len(listed)} errors"
    return StateError("request/invalid", f"The request has {count}; see 'errors'.", errors=listed)
