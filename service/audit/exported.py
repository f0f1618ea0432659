"""An export of an audit log, read back: verified by whoever has the file, without the store."""

from collections.abc import Iterable

import msgspec

from service.audit.model import FORMAT, Line, Manifest, entry_of
from service.kernel.audit import Chain


class NotAnExport(Exception):
    """The file is none of ours, or a line of it cannot be read; says which."""


def verified(lines: Iterable[bytes]) -> tuple[Manifest, Chain]:
    """The manifest of an export and its chain, followed to the end that the manifest names."""
    manifest: Manifest | None = None
    chain, entries = Chain(), msgspec.json.Decoder(Line)
    for number, line in enumerate(lines, 1):
        try:
            if manifest is None:
                manifest = msgspec.json.decode(line, type=Manifest)
                chain = Chain(manifest.after.sequence, manifest.after.hash)
            else:
                chain.follow([entry_of(manifest.tenant_id or "", entries.decode(line))])
        except msgspec.MsgspecError as error:
            raise NotAnExport(f"line {number} is not one of an export of an audit log: {error}") from None
    if manifest is None or manifest.format != FORMAT:
        raise NotAnExport("it does not begin with the manifest of an export of an audit log")
    chain.end_at(manifest.through.sequence, manifest.through.hash)
    return manifest, chain
