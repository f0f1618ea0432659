"""Examples of chains, for the contract."""

from service.http.examples import AT, Example, page

NEXT_ID = "b0c9a1f6f2d94f0f8a4f6d3e7c5b2a19"

EXAMPLES = [
    Example(
        "getOutcome",
        reply={
            "execution_id": NEXT_ID, "status": "completed", "ended": True, "result": {"shipped": True}, "error": None,
            "sequence": 12, "completed_at": AT + 90_000,
        },
    ),
    Example(
        "continueExecution", {"input": {"page": 2}},
        {"execution_id": "order-4711", "next_id": NEXT_ID, "created": True},
    ),
    Example(
        "resetExecution", {"to_sequence": 7, "reason": "a bad release"},
        {"execution_id": "order-4711", "next_id": NEXT_ID, "created": True},
    ),
    Example(
        "listChain",
        reply=page({
            "place": 1, "execution_id": "order-4711", "workflow_type": "order", "status": "completed", "attempt": 1,
            "previous_id": None, "next_id": NEXT_ID, "sequence": 9, "created_at": AT, "completed_at": AT + 60_000,
        }),
    ),
]  # fmt: skip
