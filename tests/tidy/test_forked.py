"""A process that is forked from one that has loaded the service is as good as one that has loaded it itself."""

import ast
import os
import sys
from collections.abc import Iterator

from tests import forked
from tests.tidy.house import ROOT, Module, modules

BY_CHANCE = {"os", "random", "secrets", "socket", "threading", "time", "uuid"}
"""Modules that tell or make each process something else."""
DRAWN_ANEW = {"service.kernel.ids.generator", "service.kernel.request_id._ours"}
"""What tests/preloaded.py draws again after a fork."""
PROGRAM = """
from service.kernel import ids, request_id
print(ids.uuid7(0), ids.generator.random(), request_id.made().decode())
"""


def drawn(module: Module) -> Iterator[str]:
    """The names that get a value from one of `BY_CHANCE` as the module is loaded."""
    bodies = [module.tree.body, *(node.body for node in module.tree.body if isinstance(node, ast.ClassDef))]
    for node in (node for body in bodies for node in body if isinstance(node, ast.Assign | ast.AnnAssign)):
        called = [one.func for one in ast.walk(node) if isinstance(one, ast.Call)]
        roots = {name.id for func in called for name in ast.walk(func) if isinstance(name, ast.Name)}
        if roots & BY_CHANCE:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (f"{module.name}.{ast.unparse(target)}" for target in targets)


def test_nothing_else_is_drawn_by_chance_as_a_module_is_loaded() -> None:
    assert {name for module in modules() for name in drawn(module)} == DRAWN_ANEW


def test_two_processes_have_nothing_of_what_is_drawn_by_chance_in_common() -> None:
    command = [sys.executable, "-c", PROGRAM]
    said = [forked.run(command, cwd=ROOT, env=os.environ, timeout=30).stdout.split() for _ in range(2)]
    assert [len(one) for one in said] == [3, 3]
    assert not set(said[0]) & set(said[1])
