"""Named statements: one text in `sql/*.sql`, fitted to each engine by rule.

A statement begins with `-- name: claim_ready`; the comment lines after it say what it promises. The fits, all of them:

* `:name` becomes `?` (SQLite) or `$n` (Postgres);
* `IN :ids[]` becomes `IN (SELECT value FROM json_each(?))` or `= ANY($n)`;
* `WITH rows(id TEXT, n BIGINT) AS (:rows)` becomes a `VALUES` list or `unnest($1::text[], $2::bigint[])`: a whole batch
  in one statement, because on SQLite each statement costs the interpreter lock and on Postgres a round trip;
* `LIMIT r.most`, a column of the batch, is a parameter on SQLite, whose LIMIT knows no columns: there the rows that say
  the same go together;
* `FROM t x BY KEY` becomes `INDEXED BY` the primary key on SQLite, which has no idea how many rows have a value;
* `/*+*/x` becomes `+x` on SQLite, by which it then looks no row up: the same reason;
* `FOR UPDATE [OF t] [SKIP LOCKED]` is dropped on SQLite, which has one writer;
* `INSERT` and `UPDATE` are `OR ROLLBACK` on SQLite: what a constraint refuses takes the transaction with it, as it does
  on Postgres, and SQLite need not keep every page as it was before the statement;
* `{where}` is the place of a compiled list filter;
* a second text `-- name: x @postgres` replaces the first on that engine: such names are the differences page's
  business.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import msgspec

from backends import erasure, portable, turns

NAME = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)(\[\])?")
ROWS = re.compile(r"WITH rows\(([^)]*)\)\s+AS \(:rows\)")
LOCK = re.compile(r"\s*FOR (?:UPDATE|KEY SHARE)( OF \w+)?( SKIP LOCKED)?")
CHANGED = re.compile(r"^(?:UPDATE|DELETE FROM) (\w+)", re.M)
HEADER = re.compile(r"^-- name: (\w+)(?: @(\w+))?\s*$", re.M)
PLACE = re.compile(r"\$(\d+)")
KEYED = re.compile(r"(FROM (\w+) \w+) BY KEY")
NOT_BY = "/*+*/"
WRITES = re.compile(r"^(UPDATE|INSERT)(?= )", re.M)
EACH = re.compile(r"LIMIT r\.(\w+)")
PG_TYPES = {"TEXT": "text", "BIGINT": "bigint", "BYTEA": "bytea"}
ROWS_PER_CHUNK = 256


class Statement:
    """One statement, fitted to one engine. `columns` names the batch columns of a `WITH rows`, in order; `each` the
    one of them that is a limit; `changes` is the table whose rows it updates or deletes, if it does."""

    def __init__(self, name: str, text: str, engine: str) -> None:
        self.name, self.text, self.engine = name, text, engine
        found = ROWS.search(text)
        pairs = [column.split() for column in found.group(1).split(",")] if found else []
        self.columns = tuple(pair[0] for pair in pairs)
        self._types = tuple(pair[1] for pair in pairs)
        changed = CHANGED.search(text)
        self.changes = changed.group(1) if changed else None
        each = EACH.search(text)
        self.each = each.group(1) if each else None
        self.order: list[str] = []
        self._lists: set[str] = set()
        fitted = self._postgres(text) if engine == "postgres" else self._sqlite(text)
        self.sql = fitted.strip().rstrip(";")

    def _postgres(self, text: str) -> str:
        arrays = ", ".join(f"${i + 1}::{PG_TYPES[t]}[]" for i, t in enumerate(self._types))
        names = ", ".join(self.columns)
        text = ROWS.sub(lambda _: f"WITH rows({names}) AS (SELECT * FROM unnest({arrays}))", text)
        text = KEYED.sub(r"\1", re.sub(r"IN (:[a-z_0-9]+\[\])", r"= ANY(\1)", text))

        def number(match: re.Match[str]) -> str:
            if match.group(1) not in self.order:
                self.order.append(match.group(1))
            return f"${len(self.columns) + self.order.index(match.group(1)) + 1}"

        return NAME.sub(number, text)

    def _sqlite(self, text: str) -> str:
        text = KEYED.sub(r"\1 INDEXED BY sqlite_autoindex_\2_1", LOCK.sub("", text)).replace(NOT_BY, "+")
        text = re.sub(r"IN (:[a-z_0-9]+\[\])", r"IN (SELECT value FROM json_each(\1))", text)
        if "ON CONFLICT" not in text:
            text = WRITES.sub(r"\1 OR ROLLBACK", text)
        head, marker, tail = EACH.sub(r"LIMIT :\1", text).partition("(:rows)")

        def mark(match: re.Match[str]) -> str:
            self.order.append(match.group(1))
            if match.group(2):
                self._lists.add(match.group(1))
            return "?"

        if not marker:
            return NAME.sub(mark, text)
        names = ", ".join(self.columns)
        head = re.sub(r"WITH rows\([^)]*\)", f"WITH rows({names})", head)
        return head + marker + NAME.sub(mark, tail)

    def values(self, params: Mapping[str, Any]) -> list[Any]:
        """The parameters in the order of the text."""
        if not self._lists:
            return [params[name] for name in self.order]
        return [
            msgspec.json.encode(params[name]).decode() if name in self._lists else params[name] for name in self.order
        ]

    def parts(self, rows: Sequence[Any], params: Mapping[str, Any]) -> Iterator[tuple[Sequence[Any], list[Any]]]:
        """SQLite: a batch cut so that a few texts serve it, and the parameters of each part."""
        if self.each is None:
            values = self.values(params)
            yield from ((chunk, values) for chunk in chunks(rows))
            return
        at = self.columns.index(self.each)
        for said in dict.fromkeys(row[at] for row in rows):
            values = self.values({**params, self.each: said})
            yield from ((chunk, values) for chunk in chunks([row for row in rows if row[at] == said]))

    @lru_cache(maxsize=32)  # noqa: B019  statements live as long as the process
    def for_rows(self, count: int) -> str:
        """SQLite's text for `count` rows."""
        one = "(" + ",".join("?" * len(self.columns)) + ")"
        return self.sql.replace("(:rows)", f"(VALUES {','.join([one] * count)})")

    @lru_cache(maxsize=64)  # noqa: B019  statements live as long as the process
    def filtered(self, predicate: str) -> "Statement":
        """The same statement with a list filter in its `{where}`."""
        return Statement(self.name, self.text.replace("{where}", predicate), self.engine)


def chunks(rows: Sequence[Any]) -> list[Sequence[Any]]:
    """Cut a batch into powers of two, so that a few texts serve every size and stay prepared."""
    out, start = [], 0
    while start < len(rows):
        size = min(ROWS_PER_CHUNK, 1 << ((len(rows) - start).bit_length() - 1))
        out.append(rows[start : start + size])
        start += size
    return out


@lru_cache(maxsize=1)
def texts() -> dict[str, dict[str, str]]:
    """Every statement's texts: name → {"": the shared one, "postgres": …}. A name defined twice is an error."""
    found: dict[str, dict[str, str]] = {}
    for source in sorted(files("backends").joinpath("sql").iterdir(), key=lambda entry: entry.name):
        if source.name.endswith(".sql"):
            parts = HEADER.split(source.read_text())
            for name, engine, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
                text = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
                if found.setdefault(name, {}).setdefault(engine or "", text) is not text:
                    raise ValueError(f"statement {name!r} is defined twice, the second time in {source.name}")
    derived = erasure.texts() | turns.texts()
    return found | {name: {"": text} for name, text in derived.items()} | portable.texts()


@lru_cache(maxsize=2)
def load(engine: str) -> dict[str, Statement]:
    """All statements, fitted to `engine` (`sqlite` or `postgres`)."""
    return {name: Statement(name, of.get(engine) or of[""], engine) for name, of in texts().items()}


@lru_cache(maxsize=512)
def together(statements: tuple[Statement, ...]) -> str:
    """Postgres: several set-based writes as one statement, which tells how many rows each touched. They run in the
    order of their counts, over one snapshot, each over the arrays that follow those of the one before."""
    parts, start = [], 0
    for at, statement in enumerate(statements):
        parts.append(f"w{at} AS ({moved(statement.sql, start)} RETURNING 1)")
        start += len(statement.columns)
    counts = ", ".join(f"(SELECT count(*) FROM w{at})" for at in range(len(statements)))
    return f"WITH {', '.join(parts)} SELECT {counts}"


@lru_cache(maxsize=512)
def gathered(statements: tuple[Statement, ...]) -> str:
    """Postgres: several set-based reads as one statement, each of whose rows says which read it is of. They run in
    their order over one snapshot, each over the arrays that follow those of the one before."""
    parts, start = [], 0
    for at, statement in enumerate(statements):
        parts.append(f"SELECT {at}, p{at} FROM ({moved(statement.sql, start)}) AS p{at}")
        start += len(statement.columns)
    return " UNION ALL ".join(parts)


def moved(sql: str, by: int) -> str:
    """The same text with every `$n` raised."""
    return PLACE.sub(lambda found: f"${int(found.group(1)) + by}", sql)
