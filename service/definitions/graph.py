"""The graph of a definition: who is reached, who comes to the end, which cycles nobody can leave by a decision.

Every function walks iteratively and takes time linear in nodes and edges: documents are as large as the body limit lets
them be.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from service.definitions.report import Problem, pointer, shown

END = "end"
MOST_NAMED = 6

Steps = dict[str, list["Link"]]


class Link(msgspec.Struct, frozen=True, gc=False):
    """The edge at `index` of the document, known to run from a node to a node or the end."""

    index: int
    source: str
    target: str
    conditional: bool


def links(nodes: dict[str, Any], edges: list[Any]) -> list[Link]:
    """The edges whose two ends exist; the others are left out."""
    found = []
    for index, edge in enumerate(edges):
        if isinstance(edge, dict) and is_source(edge.get("from"), nodes) and is_target(edge.get("to"), nodes):
            found.append(Link(index, edge["from"], edge["to"], edge.get("condition") is not None))
    return found


def is_source(name: Any, nodes: dict[str, Any]) -> bool:
    """Whether an edge may start at `name`: a node, never the end."""
    return isinstance(name, str) and name != END and name in nodes


def is_target(name: Any, nodes: dict[str, Any]) -> bool:
    """Whether an edge may lead to `name`: a node or the end."""
    return isinstance(name, str) and (name == END or name in nodes)


def unreachable(nodes: Iterable[str], edges: list[Link], start: str) -> Iterator[Problem]:
    """The nodes that no path from `start` reaches."""
    following: defaultdict[str, list[str]] = defaultdict(list)
    for link in edges:
        following[link.source].append(link.target)
    reached = _closure(following, [start])
    for node in nodes:
        if node not in reached:
            advice = "lead an edge to it or remove the node"
            yield pointer("nodes", node), f"Node {shown(node)} cannot be reached from {shown(start)}; {advice}."


def endless(nodes: Iterable[str], edges: list[Link]) -> Iterator[Problem]:
    """The nodes without a way to the end. One that leads to a dead end is not listed beside the dead end itself."""
    leading: defaultdict[str, list[str]] = defaultdict(list)
    for link in edges:
        leading[link.target].append(link.source)
    sources = {link.source for link in edges}
    stopping = [node for node in nodes if node not in sources]
    ending = _closure(leading, [END, *stopping])
    for node in nodes:
        if node not in sources:
            yield pointer("nodes", node), f'Node {shown(node)} has no outgoing edge; add one to "end" or to a node.'
        elif node not in ending:
            yield pointer("nodes", node), f'Node {shown(node)} has no way to the end; lead a path from it to "end".'


def undecided_cycles(nodes: Iterable[str], edges: list[Link], deciding: set[str]) -> Iterator[Problem]:
    """Every edge that closes a cycle with no condition in it: with conditions on all of these, no such cycle is left.

    A conditional edge, or a node in `deciding` with whatever leaves it, makes a cycle one that can be left.
    """
    steps: Steps = defaultdict(list)
    for link in edges:
        if not link.conditional and link.source not in deciding:
            steps[link.source].append(link)
    left: set[str] = set()
    for node in nodes:
        if node not in left:
            yield from _closing(node, steps, left)


def _closing(root: str, steps: Steps, left: set[str]) -> Iterator[Problem]:
    """A depth-first walk from `root`: each edge back onto the current path. Adds to `left` what it is done with."""
    path, depth = [root], {root: 0}
    ahead = [iter(steps.get(root, ()))]
    while path:
        link = next(ahead[-1], None)
        if link is None:
            ahead.pop()
            node = path.pop()
            del depth[node]
            left.add(node)
        elif link.target in depth:
            yield pointer("edges", link.index), _told(path, depth[link.target])
        elif link.target not in left:
            depth[link.target] = len(path)
            path.append(link.target)
            ahead.append(iter(steps.get(link.target, ())))


def _told(path: list[str], first: int) -> str:
    named = [shown(node) for node in path[first : first + MOST_NAMED]]
    if len(path) - first > MOST_NAMED:
        named.append("…")
    cycle = " → ".join([*named, named[0]])
    return f"This edge closes the cycle {cycle}, which has no condition; give an edge or a node in it one."


def _closure(following: dict[str, list[str]], roots: list[str]) -> set[str]:
    """All that can be reached from `roots`, themselves included."""
    reached, waiting = set(roots), list(roots)
    while waiting:
        for node in following.get(waiting.pop(), ()):
            if node not in reached:
                reached.add(node)
                waiting.append(node)
    return reached
