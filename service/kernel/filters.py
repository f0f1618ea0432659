"""List filters: a user's text, read as SQL, becomes our own SQL with every literal a parameter.

`status = 'failed' AND attr.customer IN ('a', 'b') AND started_at > '2026-01-01'`

Nothing of the text is passed on: its tree is walked against an allow-list and each permitted node writes a fragment of
ours. What is not on the list is refused with `request/filter`. The odd things:

* A facet that is missing is equal to nothing: `attr.x != 'a'`, `NOT attr.x = 'a'` and `attr.x NOT IN ('a')` all hold
  for a row without `x`. A field that is NULL satisfies none of the three; that is SQL, and `IS NULL` is there for it.
* A facet's strings and numbers live in two columns: `attr.x = 5` does not find the text `'5'`.
* `LIKE` takes a prefix only and becomes a range, because `LIKE` itself differs between engines. As do `<` and `BETWEEN`
  on text, the range means code point order: on Postgres the columns must be declared `COLLATE "C"`.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, NoReturn

from msgspec import Struct

from service.errors import StateError

if TYPE_CHECKING:
    from sqlglot.expressions.core import Expr
    from sqlglot.tokenizer_core import Token

MAX_CHARACTERS = 2_000
MAX_TERMS = 50
MAX_DEPTH = 16

_ALLOWED = (
    "A filter compares fields with literals (=, !=, <, <=, >, >=, IN (…), BETWEEN, LIKE 'prefix%', IS NULL), the field "
    "on the left, and joins the comparisons with AND, OR, NOT and parentheses."
)
_COMPARISONS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_CONNECTORS = {"and": " AND ", "or": " OR "}
_SHAPES: dict[str, frozenset[str]] = {  # the only nodes with a meaning here, and the only parts they may have
    **dict.fromkeys([*_COMPARISONS, *_CONNECTORS, "is"], frozenset({"this", "expression"})),
    "like": frozenset({"this", "expression", "negate"}),
    "in": frozenset({"this", "expressions"}),
    "between": frozenset({"this", "low", "high"}),
    "not": frozenset({"this"}),
    "paren": frozenset({"this"}),
}
_SYMBOLS = frozenset({"=", "!=", "<>", "<", "<=", ">", ">=", "(", ")", ",", ".", "-"})
_KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "IS", "NULL", "TRUE", "FALSE"})
_LITERALS = frozenset({"STRING", "NUMBER", "IDENTIFIER"})
_BEFORE_A_NAME = frozenset({"", "(", "AND", "OR", "NOT"})
_AFTER_A_NAME = (_SYMBOLS - frozenset("(),.-")) | {"IN", "BETWEEN", "LIKE", "IS", "NOT"}
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_WORD = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_INTEGER = re.compile("[0-9]{1,19}")
_FACET_NAME = re.compile("[A-Za-z0-9_.:-]{1,128}")
_PREFIX = re.compile(r"((?:[^\\%_]|\\[\\%_])+)%")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Value = str | int
Condition = Callable[[str], str]  # a column expression of ours → a condition over it


class Field(Struct, frozen=True):
    """A filterable column: `name` as users write it, `sql` as we do; a closed set of `values` refuses any other.

    `unless` is a value and a predicate that every other value implies: it is said beside an equality with those, so
    that an index which leaves the value out can be used.
    """

    name: str
    sql: str
    type: Literal["text", "int", "time"]
    values: frozenset[str] | None = None
    unless: tuple[str, str] | None = None

    def equal(self, condition: str, *offered: "Value") -> str:
        """An equality with one of `offered`, with what it implies."""
        if self.unless is None or self.unless[0] in offered:
            return f"({condition})"
        return f"({condition} AND {self.unless[1]})"


class Facet(Struct, frozen=True):
    """A family of free names behind a `prefix` (`attr.`).

    `sql` is an EXISTS predicate with two holes: `{name}`, a parameter holding the facet's name, and `{condition}`, a
    parenthesised condition over `sql_text` or `sql_number`, the column expressions for strings and for integers:

        Facet("attr.", "EXISTS (SELECT 1 FROM facets f WHERE f.tenant_id = e.tenant_id AND f.execution_id = e.id"
              " AND f.family = 'attr' AND f.name = {name} AND {condition})", "f.text_value", "f.number_value")

    `alone` is the same without the row that has it, with the same holes, for lists that can begin from the facet.
    """

    prefix: str
    sql: str
    sql_text: str
    sql_number: str
    alone: str = ""


class Vocabulary(Struct, frozen=True):
    """Everything a filter of one list may speak of."""

    fields: tuple[Field, ...]
    facets: tuple[Facet, ...] = ()


class Predicate(Struct, frozen=True):
    """A parenthesised SQL predicate and its parameters, `f0`, `f1`, …, referenced in it as `:f0`.

    Each of `covers` is a list of facet conditions (`Facet.alone`) of which every row that the predicate finds has one
    at least: to find the rows it is enough to look at those that have.
    """

    sql: str
    params: dict[str, Value]
    covers: tuple[tuple[str, ...], ...] = ()


def compile(text: str, vocabulary: Vocabulary) -> Predicate:
    """The predicate that `text` means, for SQLite and Postgres alike; StateError `request/filter` for anything else."""
    try:
        _check_text(text)
        compiler = _Compiler(vocabulary)
        tree = _parse(text, vocabulary)
        return Predicate(compiler.predicate(tree, 0), compiler.params, tuple(compiler.covers(tree)))
    except _Refused as refused:
        shown = text[:MAX_CHARACTERS].encode(errors="replace").decode()
        raise StateError("request/filter", str(refused), filter=shown, **refused.facts) from None


class _Refused(Exception):
    def __init__(self, sentence: str, **facts: object) -> None:
        super().__init__(sentence)
        self.facts = facts


def _check_text(text: str) -> None:
    if not text.strip():
        raise _Refused("The filter is empty; to list everything, leave the parameter out.")
    if len(text) > MAX_CHARACTERS:
        raise _Refused(f"The filter has {len(text)} characters; {MAX_CHARACTERS} are allowed.")
    if found := _UNPRINTABLE.search(text):
        code = f"U+{ord(found[0]):04X}"
        raise _Refused(
            f"The filter has the control character {code} at character {found.start() + 1}; none are allowed."
        )


def _parse(text: str, vocabulary: Vocabulary) -> "Expr":
    """The tree of `text`; sqlglot is imported here, for it is big and most processes never filter."""
    from sqlglot import exp, parse_one, tokenize
    from sqlglot.errors import ParseError, TokenError

    try:
        _check_tokens(tokenize(text), vocabulary)
        return parse_one(text, into=exp.Condition)
    except _Refused:
        raise
    except TokenError:
        raise _Refused(f"The filter cannot be read: a quote is not closed. {_ALLOWED}") from None
    except RecursionError:
        raise _too_deep() from None
    except ParseError as error:
        raise _Refused(f"The filter cannot be read{_near(error.errors)}. {_ALLOWED}") from None
    except Exception:  # the parser reads far more than our grammar, and stumbles over some of it in ways of its own
        raise _Refused(f"The filter cannot be read. {_ALLOWED}") from None


def _near(errors: list[dict[str, object]]) -> str:
    """` near character 7`, from a parse error's list, or nothing when it gives no column."""
    column = errors[0].get("col") if errors else None
    return f" near character {column}" if column else ""


def _too_deep() -> _Refused:
    return _Refused(f"The filter nests deeper than {MAX_DEPTH} parentheses and NOTs; write it flatter.")


def _check_tokens(tokens: "list[Token]", vocabulary: Vocabulary) -> None:
    """Refuse, with its place, each token outside the grammar; and depth, before a recursive parser meets it."""
    names = frozenset(field.name for field in vocabulary.fields)
    texts = ["", "", *("" if token.token_type.name in _LITERALS else token.text.upper() for token in tokens), ""]
    opened: list[bool] = []  # whether it is the list of an IN
    for token, *near, text, after in zip(tokens, texts, texts[1:], texts[2:], texts[3:], strict=False):
        if text == "(":
            opened.append(near[1] == "IN")
        elif text == ")" and opened:
            opened.pop()
        if len(opened) > MAX_DEPTH + 1:  # the list of an IN has parentheses too
            raise _too_deep()
        if token.comments:
            raise _Refused(f"The filter has a comment near character {token.start + 1}. {_ALLOWED}")
        call = after == "(" and text not in _KEYWORDS and text not in _SYMBOLS
        named = token.text in names or "." in (near[1], after)
        stray = text == "," and not (opened and opened[-1])  # the parser would try each parenthesis around it again
        ours = _is_ours(token, named)
        if not ours and near[1] in _BEFORE_A_NAME and after in _AFTER_A_NAME and _WORD.fullmatch(token.text):
            raise _unknown(vocabulary, token.text)  # a keyword of another grammar: `sequence > 1`
        if call or stray or _lenient(near, text) or not ours:
            found = f"{'the function ' if call else ''}{_quote(token.text)} at character {token.start + 1}"
            raise _Refused(f"The filter has {found}, which means nothing there. {_ALLOWED}")


def _lenient(near: list[str], text: str) -> bool:
    """Whether `text`, after the two tokens `near`, is something the parser forgives and we do not."""
    comma = (near[1], text) in ((",", ")"), ("(", ","))
    return comma or (near[1] == "NOT" and text == "NULL" and near[0] != "IS")


def _is_ours(token: "Token", named: bool) -> bool:
    """Whether the grammar has this token; `named`: it stands where a name does, so it may be another's keyword."""
    kind, text = token.token_type.name, token.text
    if kind in _LITERALS or text in _SYMBOLS or text.upper() in _KEYWORDS:
        return True
    return (kind == "VAR" or named) and _WORD.fullmatch(text) is not None


def _quote(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


class _Compiler:
    """Walks one tree, writing SQL and collecting parameters."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.params: dict[str, Value] = {}
        self.terms = 0
        self.alone: dict[int, str] = {}

    def predicate(self, node: "Expr", depth: int) -> str:
        """A connector, a NOT, parentheses or a comparison; `depth` counts the parentheses and NOTs around it."""
        if depth > MAX_DEPTH:
            raise _too_deep()
        _check_shape(node)
        if connector := _CONNECTORS.get(node.key):
            return f"({connector.join(self.predicate(operand, depth) for operand in _operands(node))})"
        if node.key == "paren":
            return self.predicate(node.this, depth + 1)
        if node.key == "not":
            return f"(NOT {self.predicate(node.this, depth + 1)})"
        return self.term(node)

    def covers(self, node: "Expr") -> list[tuple[str, ...]]:
        """What a list may begin from, once the predicate is written: any part of an AND, a choice for each of an OR."""
        if node.key == "and":
            return [cover for operand in _operands(node) for cover in self.covers(operand)]
        if node.key == "or":
            each = [self.covers(operand) for operand in _operands(node)]
            return [tuple(condition for own in each for condition in own[0])] if all(each) else []
        if node.key == "paren":
            return self.covers(node.this)
        return [(self.alone[id(node)],)] if id(node) in self.alone else []

    def term(self, node: "Expr") -> str:
        self.terms += 1
        if self.terms > MAX_TERMS:
            raise _Refused(f"The filter has more than {MAX_TERMS} comparisons; use IN (…) or several requests.")
        name = _dotted(node.this)
        if name is None:
            _unexpected(node.this, "where the name of a field belongs")
        target = _find(self.vocabulary, name)
        sql = self.field(node, target) if isinstance(target, Field) else self.facet(node, target, name)
        return f"(NOT {sql})" if node.args.get("negate") else sql

    def field(self, node: "Expr", field: Field) -> str:
        if node.key == "is":
            return (
                f"({field.sql} IS NULL)" if node.expression.key == "null" else _unexpected(node.expression, "after IS")
            )
        values = _values(node)
        if node.key == "like" and field.type != "text":
            raise _Refused(f"The field {field.name!r} is no text; LIKE compares texts only.", field=field.name)
        offered = values if node.key == "like" else [_fit(field, value) for value in values]
        condition = self.condition(node, offered)(field.sql)
        return field.equal(condition, *offered) if node.key in ("eq", "in") else f"({condition})"

    def facet(self, node: "Expr", facet: Facet, name: str) -> str:
        """An EXISTS; `!=` is the negation of `=`, so that a missing facet is unequal to everything."""
        if node.key == "is":
            raise _Refused(f"{_quote(name)} is compared with IS; only fields can be IS NULL.", field=name)
        values = [_truth(value) for value in _values(node)]
        if len({type(value) for value in values}) > 1:
            raise _Refused(f"{_quote(name)} is compared with strings and numbers at once; use OR.", field=name)
        column = facet.sql_text if isinstance(values[0], str) else facet.sql_number
        reference = self.bind(name.removeprefix(facet.prefix))
        condition = f"({self.condition(node, values, negated=True)(column)})"
        exists = facet.sql.replace("{name}", reference).replace("{condition}", condition)
        if facet.alone and node.key != "neq" and not node.args.get("negate"):
            self.alone[id(node)] = f"({facet.alone.replace('{name}', reference).replace('{condition}', condition)})"
        return f"(NOT {exists})" if node.key == "neq" else f"({exists})"

    def condition(self, node: "Expr", values: list[Value], negated: bool = False) -> Condition:
        """What `node` says of a column; `negated` writes `!=` as `=`, for a caller that puts the NOT outside."""
        if node.key == "like":
            return self.prefix(values[0])
        bound = [self.bind(value) for value in values]
        if node.key == "in":
            return lambda column: f"{column} IN ({', '.join(bound)})"
        if node.key == "between":
            return lambda column: f"{column} BETWEEN {bound[0]} AND {bound[1]}"
        operator = "=" if negated and node.key == "neq" else _COMPARISONS[node.key]
        return lambda column: f"{column} {operator} {bound[0]}"

    def prefix(self, pattern: Value) -> Condition:
        r"""The range of texts that begin as `pattern` does; `\_`, `\%` and `\\` stand for themselves."""
        match = _PREFIX.fullmatch(pattern) if isinstance(pattern, str) else None
        if match is None:
            raise _Refused(
                f"LIKE is given {_quote(str(pattern))}; it takes a string that ends in its only %, such as 'abc%'; "
                r"write \_ and \% for the characters themselves."
            )
        first = re.sub(r"\\(.)", r"\1", match[1])
        low, after = self.bind(first), _after(first)
        if after is None:
            return lambda column: f"{column} >= {low}"
        high = self.bind(after)
        return lambda column: f"{column} >= {low} AND {column} < {high}"

    def bind(self, value: Value) -> str:
        name = f"f{len(self.params)}"
        self.params[name] = value
        return f":{name}"


def _check_shape(node: "Expr") -> None:
    """Refuse a node that is not on the list, or has a part that ours never have (`BETWEEN SYMMETRIC`)."""
    parts = _SHAPES.get(node.key)
    if parts is None or any(value and part not in parts for part, value in node.args.items()):
        _unexpected(node, "where a comparison belongs")


def _operands(node: "Expr") -> "list[Expr]":
    """`a AND b AND c` as three operands: it parses as a deep tree leaning left, but is as flat as it looks."""
    operands, left = [], node
    while left.key == node.key:
        _check_shape(left)
        operands.append(left.expression)
        left = left.this
    return [left, *reversed(operands)]


def _dotted(node: "Expr") -> str | None:
    """The name as written, parts joined by dots and unquoted; None if it is anything but a name."""
    parts = []
    while node.key == "dot":
        parts.append(node.args["expression"])
        node = node.args["this"]
    if node.key == "column":
        parts += [node.args[part] for part in ("this", "table", "db", "catalog") if node.args.get(part)]
    else:
        parts.append(node)
    if any(part.key != "identifier" for part in parts):
        return None
    return ".".join(str(part.this) for part in reversed(parts))


def _find(vocabulary: Vocabulary, name: str) -> Field | Facet:
    for field in vocabulary.fields:
        if field.name == name:
            return field
    for facet in vocabulary.facets:
        if name.startswith(facet.prefix):
            return _named(facet, name)
    raise _unknown(vocabulary, name)


def _named(facet: Facet, name: str) -> Facet:
    if _FACET_NAME.fullmatch(name.removeprefix(facet.prefix)):
        return facet
    rule = f"after {facet.prefix!r} come 1 to 128 of the characters A-Z a-z 0-9 _ . : -"
    raise _Refused(f"The filter has the name {_quote(name)}; {rule}.", field=name[:160])


def _unknown(vocabulary: Vocabulary, name: str) -> _Refused:
    """Lists what there is; guesses the nearest, also for a mistaken prefix."""
    allowed = [field.name for field in vocabulary.fields] + [f"{facet.prefix}<name>" for facet in vocabulary.facets]
    rest = name.partition(".")[2]
    guesses = {field.name.lower(): field.name for field in vocabulary.fields}
    if _FACET_NAME.fullmatch(rest):
        guesses |= {(facet.prefix + rest).lower(): facet.prefix + rest for facet in vocabulary.facets}
    near = get_close_matches(name.lower(), guesses, n=1)
    hint = f" Did you mean {guesses[near[0]]!r}?" if near else ""
    return _Refused(
        f"There is no field {_quote(name)}; the fields are {', '.join(allowed)}.{hint}",
        field=name[:160],
        allowed=allowed,
    )


def _values(node: "Expr") -> list[Value]:
    """The literals of a comparison, in order."""
    if node.key == "between":
        return [_literal(node.args["low"]), _literal(node.args["high"])]
    if node.key == "in":
        values = [_literal(item) for item in node.expressions]
        return values or _unexpected(node, "with an empty list")
    return [_literal(node.expression)]


def _literal(node: "Expr") -> Value:
    """A str, a bool, or an int of 64 bits."""
    if node.key == "boolean":
        return bool(node.this)
    if node.key == "literal" and node.is_string:
        return str(node.this)
    sign, digits = (-1, node.this) if node.key == "neg" else (1, node)
    if digits.key != "literal" or digits.is_string:
        _unexpected(node, "where a literal belongs")
    number = sign * int(digits.this) if _INTEGER.fullmatch(digits.this) else 1 << 64
    if not -(1 << 63) <= number < 1 << 63:
        raise _Refused(
            f"The filter has the number {_quote(digits.this)}; numbers are integers of 64 bits, without point."
        )
    return number


def _truth(value: Value) -> Value:
    """Facets keep truth values as the texts 'true' and 'false'."""
    return str(value).lower() if isinstance(value, bool) else value


def _fit(field: Field, value: Value) -> Value:
    """`value` as the field's column holds it."""
    if field.type == "time":
        return _milliseconds(field, value)
    if isinstance(value, bool) or isinstance(value, str) != (field.type == "text"):
        kind = "a string in single quotes" if field.type == "text" else "an integer without quotes"
        raise _Refused(
            f"The field {field.name!r} is compared with {_quote(str(value))}; it takes {kind}.", field=field.name
        )
    if field.values is not None and value not in field.values:
        allowed = sorted(field.values)
        sentence = f"The field {field.name!r} is never {_quote(str(value))}; it is one of {', '.join(allowed)}."
        raise _Refused(sentence, field=field.name, allowed=allowed)
    return value


def _milliseconds(field: Field, value: Value) -> int:
    """Milliseconds since the epoch, from themselves or from ISO 8601: a bare date is midnight, no offset is UTC."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        if isinstance(value, str) and _TIME.fullmatch(value):
            moment = datetime.fromisoformat(value)
            aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return (aware - _EPOCH) // timedelta(milliseconds=1)
    except ValueError:  # the form of a time, but no such day or hour
        pass
    form = "a time such as '2026-01-01', '2026-01-01T10:00:00Z' or milliseconds since the epoch"
    raise _Refused(
        f"The field {field.name!r} is compared with {_quote(str(value))}; it takes {form}.", field=field.name
    )


def _after(prefix: str) -> str | None:
    """The least text above all that begin with `prefix`, by code point (surrogates are none); None if nothing is."""
    head = prefix.rstrip("\U0010ffff")
    if not head:
        return None
    point = ord(head[-1]) + 1
    return head[:-1] + chr(0xE000 if point == 0xD800 else point)


_NAMES = {
    "column": "a name",
    "identifier": "a name",
    "literal": "a literal",
    "boolean": "a truth value",
    "null": "NULL",
    "neg": "a minus sign",
    "paren": "parentheses",
    "tuple": "a list",
    "concat": "strings side by side",
    "sub": 'arithmetic (a name with a hyphen needs quotes: attr."customer-id")',
    "in": "IN",
    "between": "BETWEEN",
    "is": "IS",
} | dict.fromkeys(_COMPARISONS, "a comparison")


def _unexpected(node: "Expr", place: str) -> NoReturn:
    """Refuse `node`, saying what it is, whereabouts (the first name within it), and what is allowed."""
    starts = [inner.meta["start"] for inner in node.walk() if "start" in inner.meta]
    where = f" near character {min(starts) + 1}" if starts else ""
    raise _Refused(f"The filter has {_NAMES.get(node.key, 'something unknown')} {place}{where}. {_ALLOWED}")
