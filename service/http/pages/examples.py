"""Examples of the contract and the problem types, for the contract."""

from service.errors import CODES
from service.http.examples import Example
from service.http.remedies import REMEDIES


def shown(code: str) -> dict[str, object]:
    """The type of problem that a code names."""
    status, title = CODES[code]
    return {"type": f"/problems/{code}", "code": code, "status": status, "title": title, "remedy": REMEDIES[code]}


EXAMPLES = [
    Example("getContract", None, {"openapi": "3.1.0", "info": {"title": "Holdfast"}}),
    Example("getDocs", None, "<!doctype html>…"),
    Example("getPagePart", None, ":root { … }"),
    Example("getPlainProblem", None, shown("not-found")),
    Example("getProblem", None, shown("lease/stale")),
]
