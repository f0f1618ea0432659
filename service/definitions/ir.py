"""The workflow IR: what is wrong with a document, and what a valid one says of a node.

Node kinds are open: unknown kinds, extra keys and explicit nulls are nobody's mistake. Nothing here raises, whatever
JSON it is given, so the readers serve documents stored with `validate=false` as well.
"""

import re
from collections.abc import Iterator
from typing import Any

from service.definitions import graph
from service.definitions.model import VERSION_MAX
from service.definitions.nodes import decides, nodes_problems, object_or_empty, timeout_problems
from service.definitions.report import Problem, capped, pointer, shown
from service.definitions.retries import BUILT_IN_POLICIES, RetryPolicy, policy_problems, read_policy
from service.kernel.ids import NAME_PATTERN, NAMES

__all__ = ["BUILT_IN_POLICIES", "RetryPolicy", "kind_of", "policy_of", "problems"]

TAKEN = ("latest", ".", "..")
"""Versions that no path can name: the service, or what stands before it, takes them for something else."""


def problems(document: Any, workflow_id: str | None, version: str | None) -> list[Problem]:
    """All that is wrong with `document`, as (JSON pointer, sentence) pairs; empty if it is valid.

    `workflow_id` and `version` are what the document must carry; None where any will do. The order is the fields', the
    graph as a whole last. At most 1,000 are listed.
    """
    if not isinstance(document, dict):
        return [("", f"A definition must be an object; this is {shown(document)}.")]
    return capped(_document_problems(document, workflow_id, version))


def kind_of(document: dict[str, Any], node_id: str) -> str | None:
    """The kind of a node (`"model"`, `"condition"` …), or None if there is no such node."""
    kind = _node(document, node_id).get("kind")
    named = kind.get("type") if isinstance(kind, dict) else None
    return named if isinstance(named, str) else None


def policy_of(document: dict[str, Any], node_id: str) -> RetryPolicy | None:
    """The effective retry policy of a node: inline, or named and defined in the document or built in; else None."""
    offered = _node(document, node_id).get("retry_policy")
    if not isinstance(offered, str):
        return read_policy(offered)
    own = object_or_empty(document.get("retry_policies"))
    return read_policy(own[offered]) if offered in own else BUILT_IN_POLICIES.get(offered)


def _document_problems(document: dict[str, Any], workflow_id: str | None, version: str | None) -> Iterator[Problem]:
    nodes = document.get("nodes")
    yield from _name_problems(document, "workflow_id", workflow_id)
    yield from _name_problems(document, "version", version)
    yield from _start_problems(document.get("start_node"), nodes)
    yield from nodes_problems(document)
    yield from _edges_problems(document.get("edges"), nodes)
    yield from _policies_problems(document.get("retry_policies"))
    yield from _timeouts_problems(document.get("timeouts"))
    yield from _graph_problems(document.get("start_node"), nodes, document.get("edges"))


def _name_problems(document: dict[str, Any], field: str, wanted: str | None) -> Iterator[Problem]:
    name = document.get(field)
    if name is None:
        yield f"/{field}", f"{field} is missing; give a string."
    elif not isinstance(name, str):
        yield f"/{field}", f"{field} must be a string; this is {shown(name)}."
    elif wanted is not None and name != wanted:
        yield f"/{field}", f"{field} must be {shown(wanted)}, as in the path; this is {shown(name)}."
    elif not name:
        yield f"/{field}", f"{field} must not be empty."
    elif field == "workflow_id" and re.fullmatch(NAME_PATTERN, name) is None:
        yield "/workflow_id", f"workflow_id must be {NAMES}; this is {shown(name)}."
    elif field == "version" and len(name) > VERSION_MAX:
        yield "/version", f"version must have at most {VERSION_MAX} characters; this has {len(name)}."
    elif field == "version" and (name in TAKEN or "/" in name):
        yield "/version", f"version must fit into a path, and latest is taken; this is {shown(name)}."


def _start_problems(start: Any, nodes: Any) -> Iterator[Problem]:
    if start is None:
        yield "/start_node", "start_node is missing; name the node to begin with."
    elif not isinstance(start, str):
        yield "/start_node", f"start_node must be a string; this is {shown(start)}."
    elif isinstance(nodes, dict) and start not in nodes:
        yield "/start_node", f"start_node is {shown(start)}, which is not a node; name one that is."


def _edges_problems(edges: Any, nodes: Any) -> Iterator[Problem]:
    if edges is None:
        yield "/edges", "edges is missing; give an array of {from, to}."
    elif not isinstance(edges, list):
        yield "/edges", f"edges must be an array of {{from, to}}; this is {shown(edges)}."
    else:
        for index, edge in enumerate(edges):
            yield from _edge_problems(edge, nodes, pointer("edges", index))


def _edge_problems(edge: Any, nodes: Any, at: str) -> Iterator[Problem]:
    """What is wrong with one edge; whether its ends exist is asked only if there is an object of nodes."""
    if not isinstance(edge, dict):
        yield at, f"An edge must be an object with from and to; this is {shown(edge)}."
        return
    source, target = edge.get("from"), edge.get("to")
    known = isinstance(nodes, dict)
    if source == graph.END:
        yield f"{at}/from", '"end" is the terminal target; no edge can start from it.'
    elif not (graph.is_source(source, nodes) if known else isinstance(source, str)):
        yield f"{at}/from", f"from must name a node; this is {shown(source)}."
    if not (graph.is_target(target, nodes) if known else isinstance(target, str)):
        yield f"{at}/to", f'to must name a node or "end"; this is {shown(target)}.'


def _policies_problems(policies: Any) -> Iterator[Problem]:
    if policies is not None and not isinstance(policies, dict):
        yield "/retry_policies", f"retry_policies must be an object of policies by name; this is {shown(policies)}."
    for name, policy in object_or_empty(policies).items():
        yield from policy_problems(policy, pointer("retry_policies", name))


def _timeouts_problems(timeouts: Any) -> Iterator[Problem]:
    if timeouts is not None and not isinstance(timeouts, dict):
        yield "/timeouts", f"timeouts must be an object; this is {shown(timeouts)}."
    for name, seconds in object_or_empty(timeouts).items():
        yield from timeout_problems(seconds, pointer("timeouts", name))


def _graph_problems(start: Any, nodes: Any, edges: Any) -> Iterator[Problem]:
    """What is wrong with the graph as a whole; paths are judged only if every edge is sound, cycles in any case."""
    if not isinstance(nodes, dict) or not isinstance(edges, list):
        return
    found = graph.links(nodes, edges)
    begun = graph.is_source(start, nodes)
    if len(found) == len(edges) and graph.END not in nodes:
        if begun:
            yield from graph.unreachable(nodes, found, start)
        yield from graph.endless(nodes, found)
    deciding = {key for key, node in nodes.items() if decides(node)}
    yield from graph.undecided_cycles([start, *nodes] if begun else nodes, found, deciding)


def _node(document: dict[str, Any], node_id: str) -> dict[str, Any]:
    return object_or_empty(object_or_empty(document.get("nodes")).get(node_id))
