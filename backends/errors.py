"""What a store can say when it cannot do what it was asked; the kernel turns each into an answer.

StoreError
├─ Conflict         the rows were not as expected (a constraint, a guard, or others were first each time); rolled back
├─ Unavailable      the store is away; nothing was written; try again
│  └─ Locked        it is there, but somebody held a lock for longer than a write waits
├─ OutcomeUnknown   the connection broke during COMMIT; the write may have happened
├─ TooSlow          a statement of a scan took longer than it may; nothing was read
├─ Full             no room on the disk; rolled back
├─ Corrupt          the store's file is damaged; nothing was written, and nothing will be
├─ SchemaMismatch   the store's schema is not the one this program was built for
└─ Unfenced         the database would show a transaction the rows of tenants that it does not act for
"""

import os
import socket


class StoreError(Exception):
    """Base of everything a backend raises on purpose."""


class Conflict(StoreError):
    """A constraint or a guard refused the statement, or others were first each time; the transaction left no trace."""


class Unavailable(StoreError):
    """The store cannot be reached or is busy past all patience; the transaction left no trace."""


class Locked(Unavailable):
    """Somebody else held a lock for longer than a write waits; the transaction left no trace."""


class OutcomeUnknown(StoreError):
    """The connection was lost while COMMIT was under way: the transaction is whole or absent, and we cannot tell."""


class TooSlow(StoreError):
    """A statement of a scan took longer than the backend's `scan_seconds`; it was cut off."""


class Full(StoreError):
    """The store has no room; the transaction left no trace and reads go on."""


class Corrupt(StoreError):
    """The store is damaged: what it holds cannot be read, or is not what was written."""


class SchemaMismatch(StoreError):
    """The schema is newer than this program, or a migration that was applied has since been edited."""


class Unfenced(StoreError):
    """The connection could see past the row level security of the tables, or the tables have none."""


def of_the_system(error: BaseException | None) -> str | None:
    """What the system calls an error of an address, without the library's text around it; None where it has no word."""
    if not isinstance(error, OSError) or error.errno is None:
        return None
    return str(error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno))
