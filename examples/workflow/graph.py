"""The graph of an IR, and how a run moves through it: pure functions, no network.

A run has nodes that are running (each has an open work item) and nodes that wait: a node with several ways in is
entered only when nothing that is still under way can reach it any more. So a join waits for every branch that was
really taken, and the meeting point of alternatives waits for nobody.
"""

from typing import Any

from workflow.conditions import holds

END = "end"
BUILT_IN = {"no_retry": 1, "io_default": 5, "llm_default": 3}
BACKOFF = ("backoff", "initial_delay_ms", "max_delay_ms", "jitter")
Position = dict[str, list[str]]
"""`{"running": [node, …], "waiting": [node, …]}`, as it is kept in the state under `_run`."""


class Graph:
    """A valid IR, ready to be walked."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.nodes: dict[str, Any] = document["nodes"]
        self.out: dict[str, list[Any]] = {node: [] for node in self.nodes}
        for edge in document["edges"]:
            self.out[edge["from"]].append(edge)
        ways = {(edge["from"], edge["to"]) for edge in document["edges"]}
        self.several = {node for node in self.nodes if sum(to == node for _, to in ways) > 1}
        self.reach = {node: self._reached(node) for node in self.nodes}

    def _reached(self, node: str) -> set[str]:
        """The nodes that can be entered after `node`."""
        found: set[str] = set()
        todo = [node]
        while todo:
            for edge in self.out.get(todo.pop(), ()):
                if edge["to"] not in found:
                    found.add(edge["to"])
                    todo.append(edge["to"])
        return found

    def shortest(self) -> int:
        """How many nodes the shortest run has."""
        seen, ring, steps = {self.document["start_node"]}, {self.document["start_node"]}, 1
        while all(edge["to"] != END for node in ring for edge in self.out[node]):
            ring = {edge["to"] for node in ring for edge in self.out[node]} - seen
            seen |= ring
            steps += 1
        return steps

    def targets(self, node: str, state: Any) -> list[str]:
        """Where a run goes from `node`: one branch of a decision, else every edge whose condition holds or is null."""
        branches = self.nodes[node]["kind"].get("branches")
        if branches:
            chosen = [one for one in branches if one.get("condition") is not None and holds(one["condition"], state)]
            chosen = chosen or [one for one in branches if one.get("condition") is None]
            return [chosen[0]["target"]] if chosen else []
        taken = [edge for edge in self.out[node] if edge.get("condition") is None or holds(edge["condition"], state)]
        return list(dict.fromkeys(edge["to"] for edge in taken))

    def advance(self, before: Position, node: str, targets: list[str]) -> tuple[Position, list[str]]:
        """The position after `node` has ended and led to `targets`, and the nodes to enter now."""
        running = list(before["running"])
        running.remove(node)
        waiting = list(dict.fromkeys([*before["waiting"], *(one for one in targets if one in self.several)]))
        entered = [one for one in targets if one != END and one not in self.several]
        running += entered
        released = [one for one in waiting if not self._awaited(one, running, waiting)]
        if waiting and not running and not released:
            released = waiting[:1]  # each waits for another, in a cycle: one must begin
        waiting = [one for one in waiting if one not in released]
        return {"running": running + released, "waiting": waiting}, entered + released

    def _awaited(self, node: str, running: list[str], waiting: list[str]) -> bool:
        """Whether something under way can still reach a waiting node."""
        return any(node in self.reach[one] for one in (*running, *waiting) if one != node or one in running)

    def attempts(self, node: str) -> dict[str, Any]:
        """A node's retry policy as an enqueue takes it."""
        policy = self.nodes[node].get("retry_policy")
        if isinstance(policy, str):
            policy = (self.document.get("retry_policies") or {}).get(policy) or {"max_attempts": BUILT_IN[policy]}
        if not policy:
            return {}
        retry = {name: policy[name] for name in BACKOFF if policy.get(name) is not None}
        return {"max_attempts": policy["max_attempts"]} | ({"retry": retry} if retry else {})
