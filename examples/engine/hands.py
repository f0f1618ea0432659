"""What the workflows have done in the world, pretended. An activity may be done twice: its worker can die after it."""

import time
from collections.abc import Callable
from typing import Any

from engine.worker import Attempt, GivenUp


def step(name: str) -> Callable[[Attempt, Any], Any]:
    """A step of an order. Some cards fail at first, and what is too heavy cannot be shipped at all."""

    def do(attempt: Attempt, asked: Any) -> Any:
        order = asked["order"]
        if name == "charge" and attempt.number <= order.get("card_fails", 0):
            raise ValueError("the card was declined; it may pass at the next attempt")
        if name == "ship" and order.get("heavy"):
            raise GivenUp("no carrier takes it")
        return f"{name} {order['number']}"

    return do


def ship(attempt: Attempt, asked: Any) -> Any:
    """In parts, with a sign of life after each; another attempt goes on where the last one was. Some customers call
    just then, and the next sign of life is answered by the wish to stop."""
    if asked["order"].get("cancelled"):
        attempt.client.post(f"/v1/executions/{attempt.execution_id}/cancel", {"reason": "the customer called"})
    first = (attempt.details or {}).get("part", 0)
    for part in range(first, asked["order"].get("parts", 1)):
        time.sleep(asked["order"].get("part_seconds", 0))
        attempt.beat({"part": part + 1})
    return step("ship")(attempt, asked)


def undo(_attempt: Attempt, done: str) -> str:
    """The opposite of a step."""
    return f"no {done}"


ACTIVITIES: dict[str, Callable[[Attempt, Any], Any]] = {
    "reserve": step("reserve"), "charge": step("charge"), "ship": ship,
    "release": undo, "refund": undo, "recall": undo,
    "square": lambda _, number: number * number,
    "ask": lambda _, asked: asked["whom"],
    "measure": lambda _, round: round % 7,
}  # fmt: skip
