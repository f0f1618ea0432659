"""Statements compiled from their own text to Python: nested loops over rows, as a database would plan them.

Nothing is written twice: what a statement selects, guards, locks and in which order comes from `backends/sql/*.sql`.
A conjunct `column = value` becomes part of a look-up by index, whatever else is said a condition. A text that uses what
is not known here is refused when it is first used.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec
import sqlglot
from sqlglot import exp

from backends.statements import ROWS, texts
from tests.tidy import house
from tests.tidy.tenancy import conjuncts, parse, part

Row = tuple[Any, ...]
Env = tuple[Any, ...]
"""One row of each relation of a statement, in the order of its text."""
LookUp = Callable[[int, Any], Iterable[Row]]
"""The rows of `LOOKUPS[number]` with some values."""
LOOKUPS: list[tuple[str, tuple[str, ...]]] = []
"""Table and columns of every look-up that a statement makes."""
SHARED = frozenset({"events_since_snapshots", "insert_events"})
"""Statements whose text for Postgres only says the same in a way that suits its planner, or gives an event its place in
the feed, which is nothing to the simulator: the shared one is compiled."""
SIMPLY = {
    "shelves_of_keys": """
      WITH rows(tenant_id TEXT, concurrency_key TEXT) AS (:rows)
      SELECT w.tenant_id, w.concurrency_key, w.queue, w.requires
        FROM rows r
        JOIN work_items w ON w.tenant_id = r.tenant_id AND w.concurrency_key = r.concurrency_key AND w.status = 'ready'
        LEFT JOIN queues q ON q.tenant_id = w.tenant_id AND q.name = w.queue
       WHERE q.paused_at IS NULL
         AND NOT EXISTS (
               SELECT 1 FROM work_items h
                WHERE h.tenant_id = r.tenant_id AND h.concurrency_key = r.concurrency_key AND h.status = 'leased')
         AND NOT EXISTS (
               SELECT 1 FROM work_items b
                WHERE b.tenant_id = w.tenant_id AND b.concurrency_key = w.concurrency_key AND b.status = 'ready'
                  AND b.queue = w.queue AND b.requires = w.requires
                  AND (b.priority > w.priority
                       OR (b.priority = w.priority AND (b.ready_at, b.id) < (w.ready_at, w.id))))
       ORDER BY w.priority DESC, w.ready_at, w.id"""
}
"""What statements say that walk by recursion, which is not known here."""
STRENGTH = {"FOR UPDATE": 3, "FOR KEY SHARE": 1}


class Plan(msgspec.Struct, frozen=True):
    """A compiled statement, or one half of a union that is made for each row of the batch.

    `find` gives the environments as the statement's snapshot has them, `true` judges one again after its row was waited
    for, `give` makes the output row (or the new row, for a write). `target` is the place in an environment of the row
    that is locked or written, of `table`. With `each`, the query is made for every row of the batch, and that column of
    the row says how much of it is wanted.
    """

    name: str
    kind: str
    find: Callable[[Sequence[Row], Mapping[str, Any], LookUp], list[Env]]
    true: Callable[[Env, Mapping[str, Any], LookUp], bool]
    give: Callable[[Env, Mapping[str, Any], LookUp], Row]
    table: str | None = None
    target: int = 0
    lock: int = 0
    skip_locked: bool = False
    order: Callable[[Env], Any] | None = None
    limit: str | int | None = None
    each: int | None = None
    on_conflict: "OnConflict | None" = None


class OnConflict(msgspec.Struct, frozen=True):
    """What an insert does with a row that is there: nothing, or `give` of (offered row, row) where `true` is."""

    true: Callable[[Env, Mapping[str, Any], LookUp], bool] | None = None
    give: Callable[[Env, Mapping[str, Any], LookUp], Row] | None = None


def table_columns(table: str) -> dict[str, int]:
    """Where each column of a table stands."""
    return {name: index for index, name in enumerate(house.tables()[table])}


@lru_cache(maxsize=256)
def plans(name: str, where: str = "1 = 1") -> tuple[Plan, ...]:
    """The compiled statement `name`: one plan, or one for each part of a union."""
    said = {"": SIMPLY[name]} if name in SIMPLY else texts()[name]
    return compiled(name, said[""] if name in SHARED else said.get("postgres") or said[""], where)


def compiled(name: str, text: str, where: str = "1 = 1") -> tuple[Plan, ...]:
    """The plans of a text: of a union beside the rows of the batch, one for each half."""
    rows = ROWS.search(text)
    columns = tuple(column.split()[0] for column in rows.group(1).split(",")) if rows else ()
    tree = parse(text, where)
    lateral = next((join.this for join in tree.args.get("joins") or [] if isinstance(join.this, exp.Lateral)), None)
    if lateral is not None:
        union = lateral.this.this
        halves = [union.this, union.expression]
        return tuple(Compiler(name, columns).each(half.find(exp.Subquery).this) for half in halves)
    compiler = Compiler(name, columns)
    if isinstance(tree, exp.Select):
        return (compiler.select(tree),)
    if isinstance(tree, exp.Insert):
        return (compiler.insert(tree),)
    if isinstance(tree, exp.Update):
        return (compiler.update(tree),)
    assert isinstance(tree, exp.Delete), name
    return (compiler.delete(tree),)


def predicate(text: str, table: str, at: Mapping[str, int]) -> Callable[[Row], bool]:
    """A condition over the columns of one row, as a function."""
    scope = Scope()
    scope.bring(table, dict(at))
    code = Coder(scope).code(sqlglot.condition(text))
    return eval(f"lambda {scope.name(table)}: {code}", HELPERS)  # type: ignore[no-any-return]


# ── what SQL means by its operators ────────────────────────────────────────────────────────────────────────────────


def below(left: Any, right: Any) -> bool:
    """`<`, which NULL is not."""
    return left is not None and right is not None and bool(left < right)


def not_above(left: Any, right: Any) -> bool:
    """`<=`, which NULL is not."""
    return left is not None and right is not None and bool(left <= right)


def coalesce(*values: Any) -> Any:
    """The first that is not NULL."""
    return next((value for value in values if value is not None), None)


def top(values: Iterable[Any]) -> Any:
    """The largest, or NULL."""
    return max(values, default=None)


def total(values: Iterable[Any]) -> Any:
    """The sum, or NULL of nothing."""
    found = list(values)
    return sum(found) if found else None


HELPERS: dict[str, Any] = {
    "below": below, "not_above": not_above, "coalesce": coalesce, "top": top, "total": total,
    "plus": lambda left, right: left + right,
    "times": lambda left, right: left * right,
}  # fmt: skip
CALLS: dict[type, str] = {
    exp.LT: "below({0}, {1})",
    exp.LTE: "not_above({0}, {1})",
    exp.GT: "below({1}, {0})",
    exp.GTE: "not_above({1}, {0})",
    exp.NEQ: "({0} != {1} and None not in ({0}, {1}))",
    exp.Add: "plus({0}, {1})",
    exp.DPipe: "plus({0}, {1})",
    exp.Mul: "times({0}, {1})",
    exp.And: "({0} and {1})",
    exp.Or: "({0} or {1})",
    exp.EQ: "({0} == {1} is not None)",
}


class Scope:
    """The relations that an expression may speak of, and the columns of each; `rows` are those of the batch."""

    def __init__(self, outer: "Scope | None" = None, rows: Sequence[str] = ()) -> None:
        self._columns: dict[str, dict[str, int]] = dict(outer._columns) if outer else {}
        self.rows: Sequence[str] = outer.rows if outer else rows
        self.batch = "p['rows']" if outer else "rows"
        """Where the rows of the batch are: those of a subquery come with the parameters."""
        self.own: list[str] = []

    def bring(self, alias: str, columns: dict[str, int]) -> None:
        """One more relation."""
        self._columns[alias] = columns
        self.own.append(alias)

    @staticmethod
    def name(alias: str) -> str:
        """A relation's row, as a variable."""
        return f"row_{alias}"

    def place(self, column: exp.Column) -> tuple[str, int]:
        """The relation of a column, and where it stands in a row."""
        alias = column.table or next(alias for alias in self._columns if column.name in self._columns[alias])
        return alias, self._columns[alias][column.name]

    def aliases(self, node: exp.Expression) -> set[str]:
        """The relations that an expression speaks of, those of its own subqueries left out."""
        inner = {table.alias_or_name for table in node.find_all(exp.Table)}
        return {self.place(column)[0] for column in node.find_all(exp.Column) if column.table not in inner}


class Coder:
    """Writes expressions as Python."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def code(self, node: Any) -> str:
        """One expression."""
        if isinstance(node, exp.EQ) and isinstance(node.expression, exp.Literal):
            return f"({self.code(node.this)} == {self.code(node.expression)})"
        if type(node) in CALLS:
            return CALLS[type(node)].format(self.code(node.this), self.code(node.expression))
        return getattr(self, "_" + type(node).__name__.lower())(node)  # type: ignore[no-any-return]

    def _column(self, node: exp.Column) -> str:
        alias, index = self.scope.place(node)
        return f"{Scope.name(alias)}[{index}]"

    def _literal(self, node: exp.Literal) -> str:
        return repr(node.this) if node.is_string else str(node.this)

    def _null(self, _node: exp.Null) -> str:
        return "None"

    def _placeholder(self, node: exp.Placeholder) -> str:
        return f"p[{node.name!r}]"

    def _tuple(self, node: exp.Tuple) -> str:
        return f"({''.join(self.code(one) + ', ' for one in node.expressions)})"

    def _paren(self, node: exp.Paren) -> str:
        return self.code(node.this)

    def _coalesce(self, node: exp.Coalesce) -> str:
        return f"coalesce({', '.join(self.code(one) for one in (node.this, *node.expressions))})"

    def _is(self, node: exp.Is) -> str:
        return f"({self.code(node.this)} {'is not' if node.args.get('negate') else 'is'} None)"

    def _not(self, node: exp.Not) -> str:
        inner = node.this.unnest()
        if isinstance(inner, exp.Is):
            return f"({self.code(inner.this)} is not None)"
        if isinstance(inner, exp.In):
            return f"({self.code(inner.this)} is not None and not {self.code(inner)})"
        return f"(not {self.code(inner)})"

    def _in(self, node: exp.In) -> str:
        return f"({self.code(node.this)} in {self.members(node)})"

    def members(self, node: exp.In) -> str:
        """The list of an IN."""
        [first, *_] = node.expressions
        if isinstance(first, exp.Placeholder):
            return self.code(first)
        return f"({', '.join(self.code(one) for one in node.expressions)},)"

    def _case(self, node: exp.Case) -> str:
        operand = "" if node.this is None else f"{self.code(node.this)} == "
        default = node.args.get("default")
        code = "None" if default is None else self.code(default)
        for branch in reversed(node.args["ifs"]):
            code = f"({self.code(branch.args['true'])} if {operand}{self.code(branch.this)} else {code})"
        return code

    def _cast(self, node: exp.Cast) -> str:
        return self.code(node.this)

    def _exists(self, node: exp.Exists) -> str:
        return f"any(True {self.loops(node.this, Scope(self.scope))})"

    def _subquery(self, node: exp.Subquery) -> str:
        """A scalar: a count, a maximum, or whatever an aggregate makes of one."""
        query, most = node.this, None
        source = part(query, "from").this
        if isinstance(source, exp.Subquery):
            query, most = source.this, self.code(part(source.this, "limit").expression)
        scope = Scope(self.scope)
        loops = self.loops(query, scope)
        code = Aggregates(scope, loops).code(node.this.expressions[0].unalias())
        return code if most is None else f"min({code}, {most})"

    def loops(self, query: exp.Select, scope: Scope) -> str:
        """The relations and conditions of a query, as the tail of a comprehension."""
        return " ".join(Joiner(query, scope).comprehension())


class Aggregates(Coder):
    """Writes the one output of a scalar query."""

    def __init__(self, scope: Scope, loops: str) -> None:
        super().__init__(scope)
        self.loops_ = loops

    def _count(self, _node: exp.Count) -> str:
        return f"sum(1 {self.loops_})"

    def _sum(self, node: exp.Sum) -> str:
        return f"total({self.code(node.this)} {self.loops_})"

    def _max(self, node: exp.Max) -> str:
        return f"top({self.code(node.this)} {self.loops_})"


# ── relations ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Joiner:
    """The relations of a query in order, each with the conditions that can be judged once it is there."""

    def __init__(self, query: exp.Expression, scope: Scope) -> None:
        self.scope = scope
        self._left: set[str] = set()
        self.tables: dict[str, str] = {}
        where = part(query, "where")
        self._conditions = list(conjuncts(where.this if where is not None else None))
        self._ons: dict[str, list[exp.Expression]] = {}
        for source in [part(query, "from").this, *(query.args.get("joins") or [])]:
            self._bring(source)

    def _bring(self, source: exp.Expression) -> None:
        table = source.this if isinstance(source, exp.Join) else source
        alias = table.alias_or_name
        self.scope.bring(alias, self._columns(table.name))
        self._ons[alias] = list(conjuncts(source.args.get("on"))) if isinstance(source, exp.Join) else []
        if source.args.get("side") == "LEFT":
            self._left.add(alias)
        self.tables[alias] = table.name

    def _columns(self, table: str) -> dict[str, int]:
        if table == "rows":
            return {name: index for index, name in enumerate(self.scope.rows)}
        return table_columns(table)

    def steps(self) -> Iterator[tuple[str, str, str]]:
        """For each relation: its alias, an iterable of its rows, and the condition after which they count."""
        todo, bound = list(self._conditions), set(self.scope._columns) - set(self.scope.own)
        for alias in self.scope.own:
            bound.add(alias)
            own = self._ons[alias] + ([] if alias in self._left else self._judged(todo, bound))
            source, condition = self._source(alias, own)
            if alias in self._left:
                name = Scope.name(alias)
                kept = f"[{name} for {name} in {source} if {condition}]"
                source = f"({kept} or [(None,) * {len(self._columns(self.tables[alias]))}])"
                condition = self._all(self._judged(todo, bound))
            yield Scope.name(alias), source, condition

    def judged(self) -> list[exp.Expression]:
        """All conditions of a row; those of a LEFT JOIN say which rows it brings, not whether they count."""
        ons = (one for alias, ons in self._ons.items() if alias not in self._left for one in ons)
        return [*self._conditions, *ons]

    def _judged(self, todo: list[exp.Expression], bound: set[str]) -> list[exp.Expression]:
        found = [one for one in todo if self.scope.aliases(one) <= bound]
        todo[:] = [one for one in todo if one not in found]
        return found

    def _all(self, conditions: list[exp.Expression]) -> str:
        return " and ".join(Coder(self.scope).code(one) for one in conditions) or "True"

    def _source(self, alias: str, conditions: list[exp.Expression]) -> tuple[str, str]:
        """How to find the rows of a relation: by an index over what must be equal, then by the rest."""
        table = self.tables[alias]
        if table == "rows":
            return self.scope.batch, self._all(conditions)
        coder, equal, rest = Coder(self.scope), {}, []
        for one in conditions:
            pair = self._equal(alias, one)
            if pair is None or pair[0] in equal:
                rest.append(one)
            else:
                equal[pair[0]] = coder.code(pair[1])
        key = key_of(table)
        if equal.keys() >= set(key):
            rest += [one for one in conditions if one not in rest and self._equal(alias, one)[0] not in key]  # type: ignore[index]
            return look(table, key, equal), self._all(rest)
        several = next((one for one in rest if isinstance(one, exp.In) and self._of(alias, one.this)), None)
        if several is None:
            return look(table, tuple(equal), equal), self._all(rest)
        rest.remove(several)
        column = several.this.name
        found = look(table, (*equal, column), equal | {column: "one"})
        return f"(found for one in {coder.members(several)} for found in {found})", self._all(rest)

    def _of(self, alias: str, node: exp.Expression) -> bool:
        return isinstance(node, exp.Column) and self.scope.place(node)[0] == alias

    def _equal(self, alias: str, node: exp.Expression) -> tuple[str, exp.Expression] | None:
        """Column and value of a conjunct `column = value`, if the value is known before the relation's row is."""
        if not isinstance(node, exp.EQ):
            return None
        later = set(self.scope.own[self.scope.own.index(alias) :])
        for this, that in ((node.this, node.expression), (node.expression, node.this)):
            if self._of(alias, this) and not self.scope.aliases(that) & later:
                return this.name, that
        return None

    def comprehension(self) -> Iterator[str]:
        """`for … in … if …`, for each relation."""
        for name, source, condition in self.steps():
            yield f"for {name} in {source} if {condition}"


@lru_cache(maxsize=64)
def key_of(table: str) -> tuple[str, ...]:
    """The columns of a table's key."""
    from tests.simulator.rows import Table

    return Table(table).key


def look(table: str, columns: tuple[str, ...], values: Mapping[str, str]) -> str:
    """The rows of a table with these values in these columns."""
    if (table, columns) not in LOOKUPS:
        LOOKUPS.append((table, columns))
    wanted = "".join(f"{values[column]}, " for column in columns)
    return f"look({LOOKUPS.index((table, columns))}, ({wanted}))"


# ── statements ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Compiler:
    """Makes the plan of one statement."""

    def __init__(self, name: str, columns: tuple[str, ...]) -> None:
        self.name, self.columns = name, columns

    def select(self, query: exp.Select) -> Plan:
        scope = Scope(rows=self.columns)
        joiner = Joiner(query, scope) if part(query, "from") else None
        coder = Coder(scope)
        outputs = [coder.code(one.unalias()) for one in query.expressions]
        lock = next(iter(query.args.get("locks") or ()), None)
        limit, order = query.args.get("limit"), query.args.get("order")
        last = scope.own[-1] if scope.own else ""
        return Plan(
            self.name, "select", *self._functions(scope, joiner, outputs),
            table=joiner.tables[last] if joiner else None, target=max(0, len(scope.own) - 1),
            lock=0 if lock is None else self._strength(lock), skip_locked=lock is not None and not waits(lock),
            order=None if order is None else self._order(scope, order),
            limit=None if limit is None else limit_of(limit.expression),
        )  # fmt: skip

    def each(self, query: exp.Select) -> Plan:
        """A query that is made for every row `r` of the batch, and stands beside it."""
        most = part(query, "limit").expression.name
        own = part(query, "from").this
        beside = [exp.Join(this=own.copy()), *(query.args.get("joins") or [])]
        whole = query.copy().from_("rows AS r", copy=False)
        whole.set("limit", None)
        whole.set("joins", beside)
        return msgspec.structs.replace(self.select(whole), each=self.columns.index(most))

    @staticmethod
    def _strength(lock: exp.Lock) -> int:
        return next(strength for words, strength in STRENGTH.items() if lock.sql(dialect="postgres").startswith(words))

    def _order(self, scope: Scope, order: exp.Order) -> Callable[[Env], Any]:
        parts = [("-" if one.args.get("desc") else "") + Coder(scope).code(one.this) for one in order.expressions]
        return cast("Callable[[Env], Any]", self._function(scope, f"({', '.join(parts)},)", "env"))

    def _functions(self, scope: Scope, joiner: Joiner | None, outputs: list[str]) -> tuple[Any, Any, Any]:
        env = self._env(scope)
        loops = "" if joiner is None else " ".join(joiner.comprehension())
        judged = [] if joiner is None else joiner.judged()
        true = " and ".join(Coder(scope).code(one) for one in judged) or "True"
        find = f"[{env} {loops}]" if loops else "[()]"
        return (
            eval(f"lambda rows, p, look: {find}", HELPERS),
            self._function(scope, true),
            self._function(scope, f"({''.join(one + ', ' for one in outputs)})"),
        )

    @staticmethod
    def _env(scope: Scope) -> str:
        return f"({''.join(Scope.name(alias) + ', ' for alias in scope.own)})"

    @staticmethod
    def _function(scope: Scope, code: str, given: str = "env, p, look") -> Any:
        """`code` as a function of an environment."""
        space = dict(HELPERS)
        exec(f"def made({given}):\n    {Compiler._env(scope)} = env\n    return {code}", space)
        return space["made"]

    def insert(self, tree: exp.Insert) -> Plan:
        table, scope = tree.this.this.name, Scope(rows=self.columns)
        names = [column.name for column in tree.this.expressions]
        source = tree.expression
        if isinstance(source, exp.Values):
            joiner, given = None, source.expressions[0].expressions
        else:
            joiner, given = Joiner(source, scope), source.expressions
        code = {name: Coder(scope).code(one) for name, one in zip(names, given, strict=True)}
        outputs = [code.get(column, "None") for column in table_columns(table)]
        return Plan(
            self.name, "insert", *self._functions(scope, joiner, outputs), table=table,
            on_conflict=self._on_conflict(table, tree.args.get("conflict")),
        )  # fmt: skip

    def _on_conflict(self, table: str, said: exp.OnConflict | None) -> OnConflict | None:
        if said is None or not said.expressions:
            return None if said is None else OnConflict()
        scope = Scope()
        for alias in ("excluded", table):
            scope.bring(alias, table_columns(table))
        code = {one.this.name: Coder(scope).code(one.expression) for one in said.expressions}
        outputs = [code.get(name, f"{Scope.name(table)}[{at}]") for name, at in table_columns(table).items()]
        true = Coder(scope).code(part(said, "where").this)
        given = f"({''.join(one + ', ' for one in outputs)})"
        return OnConflict(self._function(scope, true), self._function(scope, given))

    def update(self, tree: exp.Update) -> Plan:
        table, scope = tree.this.name, Scope(rows=self.columns)
        joined = exp.select("*").from_("rows").join(table, on=part(tree, "where").this)
        joiner = Joiner(joined, scope)
        code = {one.this.name: Coder(scope).code(one.expression) for one in tree.expressions}
        outputs = [code.get(name, f"{Scope.name(table)}[{at}]") for name, at in table_columns(table).items()]
        return Plan(self.name, "update", *self._functions(scope, joiner, outputs), table=table, target=1, lock=2)

    def delete(self, tree: exp.Delete) -> Plan:
        table, scope = tree.this.name, Scope(rows=self.columns)
        conditions: list[exp.Expression] = []
        for one in conjuncts(part(tree, "where").this):
            if isinstance(one, exp.In):
                pairs = zip(one.this.expressions, one.args["query"].this.expressions, strict=True)
                conditions += [exp.column(of.name, table).eq(exp.column(by.name, "rows")) for of, by in pairs]
            else:
                conditions.append(one)
        if not self.columns:
            raise ValueError(f"{self.name} deletes without a batch")
        joined = exp.select("*").from_("rows").join(table, on=exp.and_(*conditions))
        joiner = Joiner(joined, scope)
        return Plan(self.name, "delete", *self._functions(scope, joiner, []), table=table, target=1, lock=3)


def waits(lock: exp.Lock) -> bool:
    """Whether a locking select waits for rows that others hold."""
    return "SKIP LOCKED" not in lock.sql(dialect="postgres")


def limit_of(node: exp.Expression) -> str | int:
    """A parameter's name, or a number."""
    return node.name if isinstance(node, exp.Placeholder) else int(node.name)
