"""A start as it came, made ready to run: in one word, `latest` pinned, with the digest that tells it from another."""

from operator import attrgetter
from typing import Any

import msgspec

from backends.protocol import Row, Tx
from service.errors import invalid, not_found
from service.executions.model import NAMES_MAX, StartExecution
from service.http.endpoint import Call
from service.kernel.json import digest
from service.kernel.raw import ABSENT, encoded

OF_RUNS = (
    "memo", "execution_timeout_ms", "run_timeout_ms", "task_timeout_ms", "workflow_retry", "workflow_max_attempts",
)  # fmt: skip
"""What a start may only say of a run: of an execution without workflow code it would mean nothing."""
said_of_runs = attrgetter(*OF_RUNS)
UNSAID = said_of_runs(StartExecution())


async def prepared(call: Call, made: StartExecution, at: str = "") -> StartExecution:
    """A start with `latest` pinned, and with the digest by which a repeat of a chosen id is recognised. `at` is its
    place in the body."""
    made = in_one_word(made, at)
    said = "" if made.execution_id is None else digest_of(made)
    version = await latest(call, made.workflow) if made.version == "latest" else made.version
    return msgspec.structs.replace(made, digest=said, version=version)


def in_one_word(made: StartExecution, at: str = "") -> StartExecution:
    """The same start, without the engine's own words for `workflow_id` and `attributes`."""
    workflow = made.workflow_id or made.workflow_type
    if not workflow or made.workflow_type not in (None, workflow):
        raise invalid([(f"{at}/workflow_id", "name the workflow once, as `workflow_id` or as `workflow_type`")])
    if wrong := [*without_meaning(made), *contradictions(made)]:
        raise invalid([(at + pointer, said) for pointer, said in wrong])
    if made.workflow_type is None and not made.search_attributes:
        return made
    attributes = made.attributes | made.search_attributes
    return msgspec.structs.replace(
        made, workflow_id=workflow, workflow_type=None, attributes=attributes, search_attributes={}
    )


def without_meaning(made: StartExecution) -> list[tuple[str, str]]:
    """What a start says that nothing would heed: the service's own digest, and what is for runs where there is none."""
    wrong = [("/digest", "it is the service's own; leave it out")] if made.digest else []
    if made.task_queue is None and said_of_runs(made) != UNSAID:
        said = [name for name in OF_RUNS if getattr(made, name) not in (None, ABSENT)]
        wrong += [(f"/{name}", "it is for workflow code; name its `task_queue`, or leave it out") for name in said]
    return wrong


def contradictions(made: StartExecution) -> list[tuple[str, str]]:
    """What a start says in both words, but differently, or more of it than there may be."""
    wrong = []
    if made.search_attributes:
        names = sorted(made.attributes.keys() & made.search_attributes.keys())
        wrong = [
            (f"/search_attributes/{name}", "`attributes` say otherwise; say it once")
            for name in names
            if encoded(made.attributes[name]) != encoded(made.search_attributes[name])
        ]
        if len(made.attributes.keys() | made.search_attributes.keys()) > NAMES_MAX:
            wrong.append(("/search_attributes", f"an execution may have {NAMES_MAX}, in both words together"))
    if made.task_queue is not None and made.queue not in (None, made.task_queue):
        wrong.append(("/queue", "`task_queue` says otherwise; say it once"))
    return wrong


def digest_of(made: StartExecution) -> str:
    """What a start said, `latest` not yet pinned: the same by either route, whether or not it spells out defaults."""
    said = given(made)
    if made.start is not None:
        said["start"] = given(made.start) | {"queue": made.start.queue or "default"}
    return digest(msgspec.json.encode(said))


def given(made: msgspec.Struct) -> dict[str, Any]:
    """The fields of a command as JSON can hold them: absent documents left out, and the digest with them."""
    return {name: value for name, value in msgspec.structs.asdict(made).items() if value != ABSENT and name != "digest"}


async def latest(call: Call, workflow_id: str) -> str:
    """The version that was stored last; told to nobody whose token has ended."""
    await call.services.tokens.stands(call.who)

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_definition_latest", tenant_id=call.who.tenant_id, workflow_id=workflow_id)

    row = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None:
        raise not_found("definition", workflow_id)
    return str(row[1])
