"""A start as it came, made ready to run: in one word, `latest` pinned, with the digest that tells it from another."""

from typing import Any

import msgspec

from backends.protocol import Row, Tx
from service.errors import invalid, not_found
from service.executions.model import StartExecution
from service.http.endpoint import Call
from service.kernel.json import digest
from service.kernel.raw import ABSENT


async def prepared(call: Call, made: StartExecution) -> StartExecution:
    """A start with `latest` pinned, and with the digest by which a repeat of a chosen id is recognised."""
    made = in_one_word(made)
    said = "" if made.execution_id is None else digest_of(made)
    version = await latest(call, made.workflow) if made.version == "latest" else made.version
    return msgspec.structs.replace(made, digest=said, version=version)


def in_one_word(made: StartExecution) -> StartExecution:
    """The same start, without the engine's own words for `workflow_id` and `attributes`."""
    workflow = made.workflow_id or made.workflow_type
    if not workflow or made.workflow_type not in (None, workflow):
        raise invalid([("/workflow_id", "name the workflow once, as `workflow_id` or as `workflow_type`")])
    attributes = made.attributes | made.search_attributes
    return msgspec.structs.replace(
        made, workflow_id=workflow, workflow_type=None, attributes=attributes, search_attributes={}
    )


def digest_of(made: StartExecution) -> str:
    """What a start said, `latest` not yet pinned: the same by either route, whether or not it spells out defaults."""
    said = given(made)
    if made.start is not None:
        said["start"] = given(made.start)
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
