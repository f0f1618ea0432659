"""Which tables and columns travel, and how rows look on the way."""

import base64
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import erasure, portable
from backends.portable import Column
from service.errors import StateError
from service.portability.exports import handed_back
from service.portability.rows import after, first, packed, unpacked
from service.portability.tables import COLUMNS
from tests.tidy import house

SECRET = re.compile(r"verifier|secret|reject|password|private|credential")
COLUMNS_OF_ALL = [Column("text", "TEXT", True), Column("number", "BIGINT", True), Column("bytes", "BYTEA", True)]


def test_every_table_of_a_tenant_travels_or_says_why_it_stays() -> None:
    assert set(portable.tables()) | set(portable.STAYS) == house.tenant_tables()
    assert not set(portable.tables()) & set(portable.STAYS)


def test_every_column_travels_with_its_type_or_is_the_stores_own() -> None:
    kinds = {"TEXT": "TEXT", "BIGINT": "INTEGER", "BYTEA": "BLOB"}
    for table, columns in portable.tables().items():
        travelling = {column.name: kinds[column.type] for column in columns}
        own = {"tenant_id", *portable.OWN.get(table, ())}
        assert travelling == {name: kind for name, kind in house.columns_of(table).items() if name not in own}, table
        nullable = {row[1] for row in house.store().execute(f"PRAGMA table_info({table})") if not row[3]}
        assert {column.name for column in columns if column.nullable} == nullable & set(travelling), table


def test_no_column_that_travels_is_a_secret() -> None:
    """A token's verifier is good for guessing at home; it stays where the token does."""
    named = [f"{table}.{column.name}" for table, columns in portable.tables().items() for column in columns]
    assert not [name for name in named if SECRET.search(name)]


def test_a_table_travels_after_those_that_it_points_at() -> None:
    names = list(portable.tables())
    for at, table in enumerate(names):
        others = {row[2] for row in house.store().execute(f"PRAGMA foreign_key_list({table})")}
        assert others <= {*names[:at], *portable.STAYS}, table


def test_rows_are_read_in_an_order_that_is_total() -> None:
    for table in portable.tables():
        order = portable.order_of(table)
        assert order == ("position",) or {"tenant_id", *order} == set(erasure.keys()[table])


@given(
    st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.binary() | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode),
)
def test_a_row_arrives_as_it_left(text: Any, number: Any, data: Any) -> None:
    line = packed((text, number, data))
    assert b"\n" not in line
    assert unpacked(COLUMNS_OF_ALL, line, "") == (text, number, data)
    assert packed(unpacked(COLUMNS_OF_ALL, line, "")) == line


@pytest.mark.parametrize(
    "row",
    [
        "null", "{}", "[]", '["a", 1]', '["a", 1, "b", 2]', '[1, 1, "b"]', '["a", "1", "b"]', '["a", 1.5, "b"]',
        '["a", true, "b"]', '["a", 9223372036854775808, "b"]', '["a", 1, 2]', '["a", 1, {"base64": "?"}]',
        '["a", 1, {"base64": 1}]', '["a", 1, {"base64": "YQ==", "x": 1}]', '["\\u0000", 1, "b"]',
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_its_columns_is_refused_with_its_place(row: str) -> None:
    with pytest.raises(StateError) as refused:
        unpacked(COLUMNS_OF_ALL, row.encode(), "/rows/7")
    assert refused.value.code == "request/invalid"
    assert refused.value.facts["errors"][0]["pointer"].startswith("/rows/7")


def test_a_column_that_is_never_null_takes_no_null() -> None:
    with pytest.raises(StateError):
        unpacked([Column("a", "TEXT", False)], b"[null]", "")


def test_a_digest_tells_of_every_row_its_order_and_its_table() -> None:
    rows = [b"[1]", b"[2]", b"[3]"]
    whole = after(first("t", ["a"]), rows)
    assert whole.rows == 3
    assert after(after(first("t", ["a"]), rows[:1]), rows[1:]) == whole
    others = [rows[:2], rows[::-1], [*rows, b"[3]"], [b"[1]", b"[2]", b"[4]"]]
    assert whole.sha256 not in {after(first("t", ["a"]), other).sha256 for other in others}
    assert after(first("u", ["a"]), rows).sha256 != whole.sha256 != after(first("t", ["b"]), rows).sha256


def test_bytes_that_are_no_text_travel_as_base64() -> None:
    assert msgspec.json.decode(packed((b"\xff",))) == [{"base64": base64.b64encode(b"\xff").decode()}]


@pytest.mark.parametrize("status", ["ready", "delayed", "completed", "dead", "cancelled", "discarded"])
def test_an_item_that_nobody_holds_leaves_as_it_is(status: str) -> None:
    assert handed_back({"status": status, "epoch": 3, "attempt": 2}, 7) == {}


HELD = {"status": "leased", "epoch": 3, "attempt": 2, "worker_id": "w", "token_id": "t", "expires_at": 9, "ready_at": 5}


@pytest.mark.parametrize("asked_to_stop", [None, 6])
def test_a_lease_does_not_travel(asked_to_stop: int | None) -> None:
    item = {**HELD, "cancel_requested_at": asked_to_stop, "id": "i"}
    ready = {"status": "ready", "ready_at": 7, "attempt": 1, "worker_id": None, "expires_at": None}
    over = {"expires_at": 7}
    left = item | {"epoch": 4, "token_id": None} | (ready if asked_to_stop is None else over)
    assert item | handed_back(item, 7) == left
    assert set(handed_back(item, 7)) <= {column.name for column in COLUMNS["work_items"]}
