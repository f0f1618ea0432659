"""A reader of statements that proves, alias by alias, that each tenant's table is bound to a tenant.

A column is *proven* when it can only hold a tenant id the caller is allowed: the parameter `:tenant_id`, a literal, a
tenant column of the batch's `rows`, or the `tenant_id` of a table that is bound. A table is *bound* when its
`tenant_id` must equal a proven column: by a conjunct of WHERE, of an inner JOIN's ON, of the ON of the LEFT JOIN that
brings it, or by `(tenant_id, …) IN (SELECT tenant_id, … FROM …)`. What stands under OR or NOT binds nothing.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlglot
from sqlglot import exp

from backends.statements import KEYED, ROWS

TENANT = "tenant_id"
ROW_TENANTS = frozenset({TENANT, "token_tenant"})
"""Columns of `rows` that the kernel fills with the caller's own tenant, or the tenant of its own token."""
Proven = Mapping[str, frozenset[str]]
"""Alias → its columns that are proven."""
Outputs = list[tuple[str, bool]]
"""A query's columns: name, and whether it is proven."""


def parse(text: str, where: str = "1 = 1") -> exp.Expression:
    """The tree of a statement as `sql/*.sql` holds it."""
    found = ROWS.search(text)
    if found:
        names = [column.split()[0] for column in found.group(1).split(",")]
        nulls = ", ".join(["NULL"] * len(names))
        text = ROWS.sub(lambda _: f"WITH rows({', '.join(names)}) AS (SELECT {nulls})", text)
    text = re.sub(r"IN (:[a-z_]+)\[\]", r"IN (\1)", text.replace("{where}", where)).replace("[])", ")")
    text = KEYED.sub(r"\1", text)
    return sqlglot.parse_one(text.strip().rstrip(";"), dialect="postgres")


def part(node: exp.Expression, name: str) -> Any:
    """A part of a node, whichever way the parser spells a name that is a keyword of Python's."""
    return node.args.get(name + "_") or node.args.get(name)


def conjuncts(condition: exp.Expression | None) -> Iterator[exp.Expression]:
    """The conditions that must all hold."""
    if isinstance(condition, exp.And):
        yield from conjuncts(condition.this)
        yield from conjuncts(condition.expression)
    elif isinstance(condition, exp.Paren):
        yield from conjuncts(condition.this)
    elif condition is not None:
        yield condition


def inner_queries(node: exp.Expression) -> Iterator[exp.Query]:
    """The queries directly under a node, not those under them."""
    for child in node.iter_expressions():
        if isinstance(child, exp.Subquery):
            yield child.this
        elif isinstance(child, exp.Query):
            yield child
        else:
            yield from inner_queries(child)


class Scope:
    """The relations of one SELECT, UPDATE or DELETE, and what is proven of them."""

    def __init__(self, reader: "Reader", outer: Proven) -> None:
        self.reader, self.outer = reader, outer
        self.own: dict[str, frozenset[str]] = {}
        self.unbound: dict[str, str] = {}
        self.columns: dict[str, list[str]] = {}

    def bring(self, source: exp.Expression) -> str:
        """Take a relation in; its alias."""
        alias = source.alias_or_name
        if isinstance(source, exp.Subquery | exp.Lateral):
            own = isinstance(source, exp.Subquery)
            outputs = self.reader.query(source.this, self.outer if own else self.visible())
            self.own[alias] = frozenset(name for name, proven in outputs if proven)
            self.columns[alias] = [name for name, _ in outputs]
        elif source.name in self.reader.ctes:
            self.own[alias] = self.reader.ctes[source.name]
        else:
            self.own[alias] = frozenset()
            self.columns[alias] = [TENANT]
            if source.name in self.reader.tables:
                self.unbound[alias] = source.name
        return alias

    def alias_of(self, column: exp.Expression) -> str | None:
        """The relation of this scope that a column belongs to; one without a name belongs to the only one there is."""
        if column.table:
            return str(column.table) if column.table in self.own else None
        return next(iter(self.own)) if len(self.own) == 1 else None

    def proven(self, value: exp.Expression) -> bool:
        """Whether a value can only be an allowed tenant."""
        if isinstance(value, exp.Placeholder):
            return value.name == TENANT
        if isinstance(value, exp.Literal):
            return bool(value.is_string)
        if not isinstance(value, exp.Column):
            return False
        alias = self.alias_of(value)
        known = self.own.get(alias, frozenset()) if alias else self.outer.get(value.table, frozenset())
        return value.name in known

    def bind(self, conditions: Iterable[tuple[exp.Expression, str | None]]) -> None:
        """Bind what the conditions bind, until nothing more follows; the second of a pair is all that it can bind."""
        conditions, before = list(conditions), -1
        while before != len(self.unbound):
            before = len(self.unbound)
            for condition, only in conditions:
                for alias in self._bound_by(condition):
                    if only in (None, alias) and self.unbound.pop(alias, None):
                        self.own[alias] = frozenset({TENANT})

    def _bound_by(self, condition: exp.Expression) -> Iterator[str]:
        if isinstance(condition, exp.EQ):
            for one, other in ((condition.this, condition.expression), (condition.expression, condition.this)):
                if self._is_tenant(one) and self.proven(other):
                    yield self.alias_of(one) or ""
        query = condition.args.get("query") if isinstance(condition, exp.In) else None
        if query is not None:
            left = condition.this.expressions if isinstance(condition.this, exp.Tuple) else [condition.this]
            outputs = Reader(self.reader.tables, self.reader.ctes).query(query.this, self.visible())
            for one, (_, proven) in zip(left, outputs, strict=False):
                if proven and self._is_tenant(one):
                    yield self.alias_of(one) or ""

    def _is_tenant(self, value: exp.Expression) -> bool:
        return isinstance(value, exp.Column) and value.name == TENANT and self.alias_of(value) is not None

    def visible(self) -> dict[str, frozenset[str]]:
        """What a query inside this one may lean on."""
        return {**self.outer, **self.own}

    def output(self, value: exp.Expression) -> Outputs:
        """The columns of one selected expression."""
        if isinstance(value, exp.Column) and isinstance(value.this, exp.Star):
            return [(name, name in self.own[value.table]) for name in self.columns[value.table]]
        if isinstance(value, exp.Star):
            return [(name, name in self.own[alias]) for alias, names in self.columns.items() for name in names]
        return [(value.alias_or_name, self.proven(value.unalias()))]


class Reader:
    """Reads one statement; `faults` are the tables it leaves unbound, in words."""

    def __init__(self, tables: Iterable[str], ctes: Proven | None = None) -> None:
        self.tables = frozenset(tables)
        self.ctes: dict[str, frozenset[str]] = dict(ctes or {})
        self.faults: list[str] = []

    def read(self, statement: exp.Expression) -> list[str]:
        """All faults of a statement."""
        self._ctes(statement)
        if isinstance(statement, exp.Insert):
            self._insert(statement)
        elif isinstance(statement, exp.Update | exp.Delete):
            self._change(statement)
        elif isinstance(statement, exp.Query):
            self.query(statement, {})
        else:
            self.faults.append(f"a {type(statement).__name__} is not read here")
        return self.faults

    def _ctes(self, statement: exp.Expression) -> None:
        for cte in (part(statement, "with") or exp.With(expressions=[])).expressions:
            names = [column.name for column in cte.args["alias"].args.get("columns") or []]
            if cte.alias == "rows":
                self.ctes["rows"] = ROW_TENANTS & frozenset(names)
                continue
            if isinstance(
                cte.this, exp.SetOperation
            ):  # it may read itself: what it begins with is proven, or is a fault
                begins = Reader(self.tables, self.ctes).query(cte.this.left, {})
                self.ctes[cte.alias] = frozenset(
                    name for name, (_, proven) in zip(names, begins, strict=True) if proven
                )
            outputs = self.query(cte.this, {})
            known = zip(names or [name for name, _ in outputs], outputs, strict=True)
            proven = frozenset(name for name, (_, proven) in known if proven)
            if self.ctes.get(cte.alias, proven) != proven:
                self.faults.append(f"{cte.alias} goes on from what is not proven")
            self.ctes[cte.alias] = proven

    def query(self, query: exp.Expression, outer: Proven) -> Outputs:
        """Read a query; its columns."""
        if isinstance(query, exp.Subquery):
            return self.query(query.this, outer)
        if isinstance(query, exp.SetOperation):
            left, right = self.query(query.left, outer), self.query(query.right, outer)
            return [(name, one and other) for (name, one), (_, other) in zip(left, right, strict=True)]
        self._ctes(query)
        scope = Scope(self, outer)
        conditions = self._sources(scope, query)
        self._finish(scope, query, conditions)
        return [column for value in query.expressions for column in scope.output(value)]

    def _sources(self, scope: Scope, query: exp.Expression) -> list[tuple[exp.Expression, str | None]]:
        """Bring in what stands in FROM and JOIN; the conditions of WHERE and ON, with what each can bind."""
        conditions: list[tuple[exp.Expression, str | None]] = []
        source = part(query, "from")
        if source is not None:
            scope.bring(source.this)
        for join in query.args.get("joins") or []:
            alias, side = scope.bring(join.this), join.side
            if side in ("RIGHT", "FULL"):
                self.faults.append(f"a {side} JOIN keeps rows that no condition binds")
            conditions += [(one, alias if side == "LEFT" else None) for one in conjuncts(join.args.get("on"))]
        where = query.args.get("where")
        return conditions + [(one, None) for one in conjuncts(where.this if where else None)]

    def _finish(self, scope: Scope, node: exp.Expression, conditions: list[tuple[exp.Expression, str | None]]) -> None:
        scope.bind(conditions)
        self.faults += [f"{table} (as {alias}) is not bound by tenant_id" for alias, table in scope.unbound.items()]
        for inner in self._inside(node):
            self.query(inner, scope.visible())

    @staticmethod
    def _inside(node: exp.Expression) -> Iterator[exp.Query]:
        """The queries inside a node's expressions and conditions; those in FROM, JOIN and WITH are relations."""
        for name, value in node.args.items():
            if name.rstrip("_") in ("from", "with"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, exp.Join):
                    yield from inner_queries(
                        exp.Tuple(expressions=[child.args["on"].copy()]) if child.args.get("on") else child
                    )
                elif isinstance(child, exp.Subquery):
                    yield child.this
                elif isinstance(child, exp.Expression):
                    yield from inner_queries(child)

    def _change(self, statement: exp.Expression) -> None:
        scope = Scope(self, {})
        scope.bring(statement.this)
        self._finish(scope, statement, self._sources(scope, statement))
        written = statement.expressions if isinstance(statement, exp.Update) else []
        if any(isinstance(one, exp.EQ) and one.this.name == TENANT for one in written):
            self.faults.append("tenant_id is written: a row never changes its tenant")

    def _insert(self, statement: exp.Insert) -> None:
        table, columns = statement.this.this.name, [one.name for one in statement.this.expressions]
        source, proven = statement.expression, [False] * len(columns)
        if isinstance(source, exp.Values):
            scope = Scope(self, {})
            proven = [
                all(scope.proven(values.expressions[at]) for values in source.expressions) for at in range(len(columns))
            ]
        elif isinstance(source, exp.Query):
            proven = [known for _, known in self.query(source, {})]
        if table not in self.tables:
            return
        if TENANT not in columns or not proven[columns.index(TENANT)]:
            self.faults.append(f"{table} is inserted into without a proven tenant_id")
        conflict = statement.args.get("conflict")
        if (
            conflict is not None
            and conflict.expressions
            and TENANT
            not in [
                key.this.name if isinstance(key, exp.Ordered) else key.name
                for key in conflict.args.get("conflict_keys") or []
            ]
        ):
            self.faults.append(f"{table} is updated on a conflict that is not within a tenant")
