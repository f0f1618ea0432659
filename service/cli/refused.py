"""What a command says when it cannot do what it was asked: one sentence that ends in what to do, and an exit code."""


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
    if isinstance(error, CycloptsError | SettingsError):
        return Refused(str(error), 2)
    return of_store(error)


def of_store(error: Exception) -> Refused | None:
    """The same for what the store, the service or the network said."""
    from backends.errors import Full, SchemaMismatch, StoreError
    from service.errors import StateError
    from service.main import BadCertificate, CannotListen

    if isinstance(error, StateError):
        return Refused(f"{error.detail} ({error.code})")
    if isinstance(error, CannotListen):
        return Refused(
            f"nothing can listen on {error}, it is taken or not of this machine; give another --port or --host"
        )
    if isinstance(error, BadCertificate):
        return Refused(f"{error}; give a certificate and its key, unencrypted, both in PEM files")
    if isinstance(error, SchemaMismatch):
        return Refused(f"{error}")
    if isinstance(error, Full):
        return Refused(f"{error}; make room and try again")
    if isinstance(error, StoreError):
        advice = (
            "" if ";" in str(error) else "; check that database_url names a store of this service, and that it is up"
        )
        return Refused(f"{error}{advice}")
    if isinstance(error, OSError) and error.filename:
        return Refused(f"{error.filename}: {error.strerror}; give another path")
    return None
