"""Examples of signals, for the contract."""

from service.http.examples import Example

EXAMPLES = [
    Example(
        "sendSignal",
        {"payload": {"approved": True}, "signal_id": "mail-7"},
        {"execution_id": "order-4711", "sequence": 9, "created": True},
    ),
    Example(
        "signalWithStart",
        {
            "start": {"workflow_type": "cart", "execution_id": "cart-12", "task_queue": "carts"},
            "signal": {"name": "item-added", "payload": {"sku": "b-1"}},
        },
        {"execution_id": "cart-12", "sequence": 2, "created": True},
    ),
]
