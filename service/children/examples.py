"""Examples of children, for the contract."""

from service.http.examples import AT, Example, page

EXAMPLES = [
    Example(
        "startChild",
        {"child": {"type": "StartChildWorkflow", "seq": 2, "workflow_type": "shipment", "execution_id": "shipment-4711",
         "input": {"order": 4711}, "parent_close_policy": "request_cancel"}},
        {"seq": 2, "workflow_type": "shipment", "execution_id": "shipment-4711", "status": "open", "created": True},
    ),
    Example(
        "listChildren",
        reply=page({
            "seq": 2, "workflow_type": "shipment", "execution_id": "shipment-4711", "status": "completed",
            "execution_status": "completed", "created_at": AT, "ended_at": AT + 60_000,
        }),
    ),
]  # fmt: skip
