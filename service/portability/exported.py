"""An export, read back by whoever has the file: verified, and cut into the parts of an import."""

from collections.abc import Iterable, Iterator

import msgspec

from service.portability.model import Manifest, Written
from service.portability.rows import after, digest_of, first

PART_ROWS, PART_BYTES = 500, 262_144
LINE = msgspec.json.Decoder(dict[str, msgspec.Raw])


class NotAnExport(Exception):
    """The file is none of ours, was changed or cut off; says where."""


def manifest_of(line: bytes) -> Manifest:
    """The manifest that a file begins with."""
    try:
        manifest = msgspec.json.decode(line, type=Manifest)
    except msgspec.MsgspecError as error:
        raise NotAnExport(f"it does not begin with the manifest of a tenant: {error}") from None
    if manifest.sha256 != digest_of(manifest):
        raise NotAnExport("its manifest was changed")
    return manifest


def rows_of(lines: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """The lines after the manifest: each row's table, and the row."""
    for number, line in enumerate(lines, 2):
        try:
            [(table, row)] = LINE.decode(line).items()
        except (msgspec.MsgspecError, ValueError):
            raise NotAnExport(f"line {number} is no row of a tenant") from None
        yield table, bytes(row)


def examined(lines: Iterator[bytes]) -> Manifest:
    """The manifest of an export, all of which is there and as it was written."""
    manifest = manifest_of(next(lines, b""))
    written = {name: first(name, table.columns) for name, table in manifest.tables.items()}
    for table, rows in parts_of(lines):
        if table not in written:
            raise NotAnExport(f"its manifest knows no table {table!r}")
        written[table] = after(written[table], rows)
    for name, promised in manifest.tables.items():
        if written[name] != Written(promised.rows, promised.sha256):
            raise NotAnExport(f"the rows of {name} were changed or cut off ({written[name].rows} of {promised.rows})")
    return manifest


def parts_of(lines: Iterable[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """The rows after the manifest as parts of an import, always cut in the same places."""
    name, rows, size = "", list[bytes](), 0
    for table, row in rows_of(lines):
        if rows and (table != name or len(rows) == PART_ROWS or size + len(row) > PART_BYTES):
            yield name, rows
            rows, size = [], 0
        name, size = table, size + len(row)
        rows.append(row)
    if rows:
        yield name, rows
