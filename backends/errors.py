"""What a store can say when it cannot do what it was asked; the kernel turns each into an answer.

StoreError
├─ Conflict         the rows were not as expected (a constraint, or a guard that matched nothing); rolled back
├─ Unavailable      the store is away; nothing was written; try again
├─ OutcomeUnknown   the connection broke during COMMIT; the write may have happened
├─ Full             no room on the disk; rolled back
└─ SchemaMismatch   the store's schema is not the one this program was built for
"""


class StoreError(Exception):
    """Base of everything a backend raises on purpose."""


class Conflict(StoreError):
    """A constraint or a guard refused the statement; the transaction left no trace."""


class Unavailable(StoreError):
    """The store cannot be reached or is busy past all patience; the transaction left no trace."""


class OutcomeUnknown(StoreError):
    """The connection was lost while COMMIT was under way: the transaction is whole or absent, and we cannot tell."""


class Full(StoreError):
    """The store has no room; the transaction left no trace and reads go on."""


class SchemaMismatch(StoreError):
    """The schema is newer than this program, or a migration that was applied has since been edited."""
