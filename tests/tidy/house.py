"""The house as the tidy tests read it: source files as trees, the schema as the migrations make it."""

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from backends import migrate
from backends.sqlite_file import opened

ROOT = Path(__file__).parents[2]
PACKAGES = ("service", "backends", "migrations")


class Module(NamedTuple):
    """One source file: its dotted name, its path and its tree."""

    name: str
    path: Path
    tree: ast.Module


@lru_cache(maxsize=1)
def modules() -> list[Module]:
    """Every module of the three packages."""
    return [module_of(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def module_of(path: Path) -> Module:
    """The module in a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(path.read_text("utf-8"), str(path)))


def strings(tree: ast.AST) -> Iterator[str]:
    """Every string literal of a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@lru_cache(maxsize=1)
def store() -> apsw.Connection:
    """A SQLite store with every migration applied, in memory."""
    db = opened(":memory:")
    migrate.on_sqlite(db, 0)
    return db


@lru_cache(maxsize=1)
def tables() -> dict[str, dict[str, str]]:
    """Every table of the service: column → type as SQLite has it."""
    names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return {name: columns_of(name) for (name,) in store().execute(names) if name != "schema_migrations"}


def columns_of(table: str) -> dict[str, str]:
    """The columns of a table, in order, with their types."""
    return {row[1]: row[2] for row in store().execute(f"PRAGMA table_info({table})")}


def tenant_tables() -> frozenset[str]:
    """The tables whose rows belong to a tenant."""
    return frozenset(name for name, columns in tables().items() if "tenant_id" in columns)


def capabilities() -> Any:
    """The registry."""
    from service import capabilities

    return capabilities
