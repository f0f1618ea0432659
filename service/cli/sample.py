"""What `holdfast dev` shows: a definition with a decision and a loop in it, and one execution of it."""

from typing import Any

import msgspec

WORKFLOW, VERSION = "greeting", "1"
DEFINITION = {
    "workflow_id": WORKFLOW,
    "version": VERSION,
    "name": "Greeting",
    "start_node": "draft",
    "nodes": {
        "draft": {"id": "draft", "kind": {"type": "tool", "tool": "draft"}, "retry_policy": "io_default"},
        "check": {
            "id": "check",
            "kind": {
                "type": "condition",
                "branches": [
                    {"condition": 'state.tone == "rude"', "target": "rewrite"},
                    {"condition": None, "target": "send"},
                ],
            },
        },
        "rewrite": {"id": "rewrite", "kind": {"type": "tool", "tool": "rewrite"}},
        "send": {"id": "send", "kind": {"type": "tool", "tool": "send"}, "retry_policy": "io_default"},
    },
    "edges": [
        {"from": "draft", "to": "check"},
        {"from": "check", "to": "rewrite"},
        {"from": "check", "to": "send"},
        {"from": "rewrite", "to": "check"},
        {"from": "send", "to": "end"},
    ],
}


async def started(services: Any, tenant_id: str) -> str:
    """Store the sample and start one execution of it, its first work item waiting to be claimed; the execution's id."""
    from service.definitions.model import StoreDefinition
    from service.definitions.routes import start_node
    from service.executions.model import FirstItem, StartExecution
    from service.kernel.json import canonical, digest
    from service.kernel.principal import internal

    body, start = canonical(DEFINITION), msgspec.json.encode(start_node(DEFINITION))
    store = StoreDefinition(WORKFLOW, VERSION, body, digest(body), True, start)
    begin = StartExecution(WORKFLOW, VERSION, input=msgspec.Raw(b'{"name":"Ada"}'), start=FirstItem())
    await services.kernel.run(internal(tenant_id), store)
    made = await services.kernel.run(internal(tenant_id), begin)
    return str(made.execution_id)
