"""What workers send: claims, and submissions with the commands of all capabilities, decoded one by one, so that every
error is told at once."""

from typing import Annotated, Any, Union

import msgspec

from service import capabilities
from service.errors import invalid
from service.http.batch import BATCH_MAX
from service.http.endpoint import located
from service.kernel.command import PATH
from service.kernel.ids import Name
from service.runs.model import COMMANDS_MAX, Places, Seen, SubmitCommands
from service.work.model import Epoch, LeaseMs

COMMANDS = tuple(capabilities.parts("model", "COMMANDS"))
Command: Any = Union[COMMANDS]  # noqa: UP007  the members are only known at run time


RawCommand = Annotated[msgspec.Raw, msgspec.Meta(extra={"shape": Command})]


class Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a workflow asks for, having seen the log up to `history_sequence`."""

    epoch: Epoch
    history_sequence: Seen
    commands: Annotated[list[RawCommand], msgspec.Meta(max_length=COMMANDS_MAX)] = []
    id: str = PATH


class ClaimTasks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask for workflow tasks of some queues, of workflow types that this worker can run.

    `since` says how far the worker has the log of executions in its memory: their history is answered from there on, or
    from the beginning if the log ends before that. `since_at` says of some of them when the event there was written,
    its `at`: where another event stands there, the log is another one, and answered from the beginning.

    The submissions of `settle` are made first, each for itself, and in the same commit where there is room; if any of
    them is refused, the answer does not wait.
    """

    worker_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    queues: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=64)]
    types: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=256)]
    namespace: Name = "main"
    max_items: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    lease_ms: LeaseMs = 30_000
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0
    since: Places = {}
    since_at: Places = {}
    settle: Annotated[list[Submission], msgspec.Meta(max_length=BATCH_MAX)] = []


CLAIM, SUBMISSION = msgspec.json.Decoder(ClaimTasks), msgspec.json.Decoder(Submission)
MANY = msgspec.json.Decoder(Annotated[list[Submission], msgspec.Meta(min_length=1, max_length=BATCH_MAX)])
ONE = msgspec.json.Decoder(Command)


def submission(said: Submission) -> SubmitCommands:
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
