"""The table of docs/audit.md: every act that is audited stands in it, and every operation that must be is in one or the
other of its parts."""

import ast
import re
from pathlib import Path

from service import capabilities
from tests.tidy import house

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text("utf-8")
TABLE, REST = PAGE.split("\n\nWhat runs an execution", 1)
AUDITED = {
    "token.manage", "token.self", "tenant.manage", "tenant.export", "definition.write", "execution.operate",
    "work.operate", "job.operate", "namespace.manage",
}  # fmt: skip
"""Permissions whose every writing operation is an act: tokens, tenants, definitions, what operators do."""
STATUSES = {"cancelled", "terminated", "paused", "resumed", "failed"}


def told() -> set[str]:
    """Every action that the code tells of, as far as it is written out."""
    found = {"audit.trimmed"} | {f"execution.{status}" for status in STATUSES}
    for module in house.modules():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id == "audit" or (node.func.id == "add" and module.name.endswith(".sweeps")):
                for argument in node.args:
                    found |= {text for text in house.strings(argument) if re.fullmatch(r"[a-z]+\.[a-z_]+", text)}
    return found


def test_every_action_stands_in_the_table() -> None:
    assert told() - set(re.findall(r"`([a-z]+\.[a-z_]+)`", TABLE)) == set()


def test_the_table_names_no_action_that_nobody_tells_of() -> None:
    assert set(re.findall(r"`([a-z]+\.[a-z_]+)`", TABLE)) - told() == set()


def test_every_operation_that_must_be_audited_is_in_the_table_or_says_why_it_is_not() -> None:
    named = set(re.findall(r"`([a-z]+[A-Z]\w+)`", TABLE + REST))
    must = {
        one.operation
        for one in capabilities.endpoints()
        if one.permit in AUDITED and (one.method != "GET" or one.permit == "tenant.export")
    }
    assert must - named == set(), "audit them, and say so in docs/audit.md"


def test_the_page_names_no_operation_that_is_not_there() -> None:
    operations = {one.operation for one in capabilities.endpoints()}
    assert set(re.findall(r"`([a-z]+[A-Z]\w+)`", TABLE + REST)) - operations == set()
