"""Rows as they travel: JSON arrays, and a digest that each row carries on.

A BYTEA is the text that it nearly always is, or `{"base64": …}`; so what arrives is byte for byte what left, on either
engine. The digest of a table is that of its last row: SHA-256 over the digest before it and the row's own bytes.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from service.errors import invalid
from service.kernel.raw import encoded
from service.portability.model import Manifest, Written
from service.portability.tables import Column

LOW, HIGH = -(2**63), 2**63 - 1


def first(table: str, columns: Sequence[str]) -> Written:
    """The digest of a table without rows."""
    return Written(0, hashlib.sha256(encoded([table, *columns])).hexdigest())


def after(before: Written, rows: Iterable[bytes]) -> Written:
    """The digest with some more rows."""
    count, digest = before.rows, before.sha256
    for row in rows:
        count, digest = count + 1, hashlib.sha256(digest.encode() + row).hexdigest()
    return Written(count, digest)


def digest_of(manifest: Manifest) -> str:
    """The digest of a manifest, its own left out."""
    return hashlib.sha256(encoded(msgspec.structs.replace(manifest, sha256=""))).hexdigest()


def packed(values: Iterable[Any]) -> bytes:
    """A row of the store as it travels."""
    return encoded([text_of(value) if isinstance(value, bytes) else value for value in values])


def text_of(value: bytes) -> Any:
    """Bytes as text, or as base64 where they are none."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def unpacked(columns: Sequence[Column], row: bytes, pointer: str) -> tuple[Any, ...]:
    """A row that has travelled, as the store takes it; 422 with the place of a value that its column does not hold."""
    values = msgspec.json.decode(row)
    if not isinstance(values, list) or len(values) != len(columns):
        raise invalid([(pointer, f"a row is an array of its {len(columns)} columns")])
    return tuple(
        taken(column, value, f"{pointer}/{index}")
        for index, (column, value) in enumerate(zip(columns, values, strict=True))
    )


def taken(column: Column, value: Any, pointer: str) -> Any:
    """A value as the column's type has it."""
    if value is None and column.nullable:
        return None
    if column.type == "BIGINT" and isinstance(value, int) and not isinstance(value, bool) and LOW <= value <= HIGH:
        return value
    if column.type == "TEXT" and isinstance(value, str) and "\0" not in value:
        return value
    if column.type == "BYTEA" and isinstance(value, str):
        return value.encode()
    if column.type == "BYTEA" and isinstance(value, dict) and set(value) == {"base64"}:
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            pass
    raise invalid([(pointer, f"is no {column.type} that the column {column.name!r} takes")])
