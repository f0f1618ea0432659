"""What a command says when it cannot do what it was asked: one sentence that ends in what to do, and an exit code."""

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import CycloptsError

UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What the system says when an output cannot take what is printed."""


class Refused(Exception):
    """The sentence for the terminal; `code` is 2 for a command called wrongly, 1 for one that met with a refusal."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


def explained(error: Exception) -> Refused | None:
    """What was to be expected, explained; None for a fault of the program, which deserves its traceback."""
    from cyclopts import CycloptsError

    from service.settings import SettingsError

    if isinstance(error, Refused):
        return error
    if isinstance(error, SettingsError):
        return Refused(str(error), 2)
    if isinstance(error, CycloptsError):
        return Refused(of_usage(error), 2)
    if isinstance(error, UnicodeEncodeError):  # UTF-8 can write all but the bytes of a word that were none
        return Refused("an argument or a variable is not text in the letters of the locale; write it in UTF-8", 2)
    return of_store(error)


def of_usage(error: "CycloptsError") -> str:
    """What is wrong with the words of a command, and where to read of it unless that says enough."""
    from cyclopts import UnusedCliTokensError

    said, command = str(error), " ".join(["holdfast", *(error.command_chain or ())])
    if isinstance(error, UnusedCliTokensError):
        said = f"`{command}` takes no {', '.join(map(repr, error.unused_tokens or ()))}"
    told = "Did you mean" in said or "Choose from" in said
    return said if told else f"{said if said.endswith('...') else said.rstrip('., ')}; see `{command} --help`"


def of_store(error: Exception) -> Refused | None:
    """The same for what the store, the service or the network said."""
    from backends.errors import Full, SchemaMismatch, StoreError
    from service.errors import StateError
    from service.main import BadCertificate, CannotListen

    if isinstance(error, StateError):
        return Refused(f"{error.detail} ({error.code})")
    if isinstance(error, CannotListen):
        return Refused(f"nothing can listen on {error}; give another --port or --host")
    if isinstance(error, BadCertificate):
        return Refused(f"{error}; give a certificate and its key, unencrypted, both in PEM files")
    if isinstance(error, SchemaMismatch):
        return Refused(f"{error}")
    if isinstance(error, Full):
        return Refused(f"{error}; make room and try again")
    if isinstance(error, StoreError):
        advice = "check that database_url names a store of this service, and that it is up"
        if isinstance(error.__cause__, OSError):
            advice = "check that database_url names a file that this user may read and write, as well as its folder"
        return Refused(f"{error}" if ";" in str(error) else f"{error}; {advice}")
    if isinstance(error, OSError) and error.filename:
        return Refused(f"{error.filename}: {error.strerror}; give another path")
    if isinstance(error, OSError) and error.errno in UNWRITTEN:
        return Refused(f"the output cannot be written: {error.strerror}; make room and ask again")
    return None
