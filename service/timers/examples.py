"""Examples of timers, for the contract."""

from service.http.examples import AT, Example

EXAMPLES = [
    Example(
        "scheduleTimer",
        {"seq": 3, "duration_ms": 60_000},
        {"execution_id": "order-4711", "seq": 3, "fire_at": AT + 60_000, "status": "open", "created": True},
    ),
]
