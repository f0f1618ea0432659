"""The first token of a store on its way to whoever started the service: a terminal or a file, never the log."""

from pathlib import Path
from typing import Any

from service.cli.output import say_no_more
from service.cli.refused import Refused
from service.settings import Settings
from service.tokens.bootstrap import first_admin, has_admin
from service.tokens.secret import Presented, parse

FILE_MAX = 4_096
"""Characters that are read of a file with a token."""


async def introduce(services: Any, settings: Settings) -> bool:
    """See to it that there is a system administrator's token; False when there was one already.

    It is minted and shown, or it is the one in the file that the settings name, which is stored and not shown.
    """
    if await has_admin(services):
        return False
    given = of_file(settings.bootstrap_token_file) if settings.bootstrap_token_file else None
    text = await first_admin(services, given)
    if text is not None and given is None:
        show("System admin token", text)
    return text is not None


def of_file(path: str) -> tuple[str, Presented]:
    """The token in a file: its text and its parts. No more is read than a token and some room around it: what is named
    by mistake may be large, or a device that has no end."""
    try:
        with Path(path).open(encoding="ascii") as file:
            text = file.read(FILE_MAX).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Refused(
            f"bootstrap_token_file {path}: cannot be read, {why}; put a system token (holds_…) there"
        ) from None
    parts = parse(text)
    if parts is None or parts.kind != "system":
        raise Refused(f"bootstrap_token_file {path}: does not hold a whole system token; put one (holds_…) there")
    return text, parts


def show(what: str, text: str) -> None:
    """A token's text, plainly; `Refused` when it cannot be printed, for nobody will see it then."""
    try:
        print(f"{what}, shown this once:\n\n    {text}\n", flush=True)
    except OSError as error:
        say_no_more()
        lost = f"{what}: minted, but it could not be printed ({error.strerror}) and is lost"
        raise Refused(
            f"{lost}; make room and mint another: `holdfast token bootstrap`, `holdfast token mint`"
        ) from None
