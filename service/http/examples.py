"""Examples for the contract: each capability lists, in `examples.EXAMPLES`, what its operations are sent and answer."""

from typing import Any

import msgspec

from service import capabilities

CURSOR = "q83vEjRWeJASNFZ4WyJvcmRlci00NzExIl0"
AT = 1_795_179_928_296
TOKEN_ID = "QbBKAdR4rBmcRH5J"
ITEM_ID = "01a1f90f-dae8-74b5-b3d0-9188ca54e5d3"


class Example(msgspec.Struct, frozen=True):
    """What one operation is sent (if it has a body) and answers, as JSON values."""

    operation: str
    request: Any = None
    reply: Any = None


def examples() -> dict[str, Example]:
    """Every example, by operation."""
    return {example.operation: example for example in capabilities.parts("examples", "EXAMPLES")}


def page(*items: Any, next_cursor: str | None = None) -> dict[str, Any]:
    """A page of a list."""
    return {"items": list(items), "next_cursor": next_cursor}


def done(*replies: Any) -> dict[str, Any]:
    """The answer to a batch in which everything was done."""
    return {"results": [{"ok": reply} for reply in replies]}
