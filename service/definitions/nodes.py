"""The nodes of a definition: what is wrong with them, one by one, and which of them choose their way."""

import math
from collections.abc import Iterator
from typing import Any

from service.definitions import graph
from service.definitions.report import Problem, pointer, shown
from service.definitions.retries import BUILT_IN_POLICIES, policy_problems


def nodes_problems(document: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with the nodes of `document`, one by one; the edges count only as far as a branch needs one."""
    nodes = document.get("nodes")
    if nodes is None:
        yield "/nodes", "nodes is missing; give an object of nodes by id."
    elif not isinstance(nodes, dict):
        yield "/nodes", f"nodes must be an object of nodes by id; this is {shown(nodes)}."
    elif not nodes:
        yield "/nodes", "nodes is empty; give at least one node."
    else:
        joined = _joined(nodes, document.get("edges"))
        for key, node in nodes.items():
            yield from _node_problems(document, key, node, joined)


def _node_problems(
    document: dict[str, Any], key: str, node: Any, joined: set[tuple[str, str]] | None
) -> Iterator[Problem]:
    """What is wrong with one node; `joined` are the pairs that edges join, None if that cannot be told."""
    at = pointer("nodes", key)
    if key == graph.END:
        yield at, 'A node cannot be called "end", the name of the terminal target; rename it.'
    if not isinstance(node, dict):
        yield at, f"A node must be an object; this is {shown(node)}."
        return
    if node.get("id") != key:
        yield f"{at}/id", f"id must be the node's key {shown(key)}; this is {shown(node.get('id'))}."
    yield from _kind_problems(node.get("kind"), f"{at}/kind")
    for index, what in _branch_problems(document["nodes"], key, node, joined):
        yield f"{at}/kind/branches/{index}/target", what
    yield from _named_policy_problems(node.get("retry_policy"), document.get("retry_policies"), f"{at}/retry_policy")
    yield from timeout_problems(node.get("node_timeout_secs"), f"{at}/node_timeout_secs")


def _kind_problems(kind: Any, at: str) -> Iterator[Problem]:
    if not isinstance(kind, dict):
        yield at, f"kind must be an object with a type; this is {shown(kind)}."
    elif not isinstance(kind.get("type"), str):
        yield f"{at}/type", f"type must be a string; this is {shown(kind.get('type'))}."


def _branch_problems(
    nodes: dict[str, Any], key: str, node: dict[str, Any], joined: set[tuple[str, str]] | None
) -> Iterator[tuple[int, str]]:
    """What is wrong with the branches of a node, by index."""
    for index, target in _branches(node):
        if not graph.is_target(target, nodes):
            yield index, f'A branch must lead to a node or "end"; this is {shown(target)}.'
        elif joined is not None and (key, target) not in joined:
            yield index, f"The branch from {shown(key)} to {shown(target)} has no edge; add one."


def _named_policy_problems(offered: Any, defined: Any, at: str) -> Iterator[Problem]:
    """What is wrong with a node's policy. Names are judged only if the document's own policies can be read."""
    if isinstance(offered, str):
        readable = defined is None or isinstance(defined, dict)
        if readable and offered not in object_or_empty(defined) and offered not in BUILT_IN_POLICIES:
            known = ", ".join(BUILT_IN_POLICIES)
            advice = f"define it in retry_policies or use a built-in one ({known})"
            yield at, f"The retry policy {shown(offered)} is not defined; {advice}."
    elif isinstance(offered, dict):
        yield from policy_problems(offered, at)
    elif offered is not None:
        yield at, f"retry_policy must be a name, an object or null; this is {shown(offered)}."


def timeout_problems(seconds: Any, at: str) -> Iterator[Problem]:
    """What is wrong with a timeout: null, or a number above 0, fractions included."""
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (number and 0 < seconds < math.inf):
        yield at, f"A timeout must be a number above 0 or null; this is {shown(seconds)}."


def decides(node: Any) -> bool:
    """Whether a node chooses its way: a condition, or anything with branches. A kind that cannot be read may be one."""
    kind = node.get("kind") if isinstance(node, dict) else None
    if not isinstance(kind, dict) or not isinstance(kind.get("type"), str):
        return True
    return kind["type"] == "condition" or any(_branches(node))


def _branches(node: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """The index and target of each branch of a node that has a target."""
    branches = object_or_empty(node.get("kind")).get("branches")
    for index, branch in enumerate(branches if isinstance(branches, list) else []):
        target = object_or_empty(branch).get("target")
        if target is not None:
            yield index, target


def _joined(nodes: dict[str, Any], edges: Any) -> set[tuple[str, str]] | None:
    """The pairs of names that edges join, or None if there is no array of edges."""
    if not isinstance(edges, list):
        return None
    return {(link.source, link.target) for link in graph.links(nodes, edges)}


def object_or_empty(value: Any) -> dict[str, Any]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}
