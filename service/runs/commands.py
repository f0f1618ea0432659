"""The commands of a submission, of all capabilities: decoded one by one, so that every error is told at once."""

from typing import Annotated, Any, Union

import msgspec

from service import capabilities
from service.errors import invalid
from service.http.endpoint import located
from service.runs.model import COMMANDS_MAX, Seen, SubmitCommands
from service.work.model import Epoch

COMMANDS = tuple(capabilities.parts("model", "COMMANDS"))
Command: Any = Union[COMMANDS]  # noqa: UP007  the members are only known at run time


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A submission, its commands still raw."""

    epoch: Epoch
    history_sequence: Seen
    commands: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=COMMANDS_MAX)] = []
    id: str = ""


ENVELOPE = msgspec.json.Decoder(Envelope)
ONE = msgspec.json.Decoder(Command)


def submission(said: Envelope) -> SubmitCommands:
    """What a worker submits, its commands decoded."""
    return SubmitCommands(said.epoch, said.history_sequence, decoded(said.commands), said.id)


def decoded(raw: list[msgspec.Raw]) -> list[Any]:
    """The commands; 422 with every error, each at its place."""
    made, wrong = [], []
    for index, one in enumerate(raw):
        try:
            made.append(ONE.decode(one))
        except msgspec.ValidationError as error:
            pointer, said = located(str(error))
            wrong.append((f"/commands/{index}{pointer}", said))
    if wrong:
        raise invalid(wrong)
    return made
