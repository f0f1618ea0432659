"""Many tenants, each with an owner's token that the server has seen before."""

import msgspec

from bench import stock
from bench.job import Target
from bench.server import Running


class Minted(msgspec.Struct):
    """The answer to minting: the token's text."""

    secret: str


def tenants(running: Running, count: int) -> list[Target]:
    """`count` new tenants, in the order in which their tokens were answered."""
    admin = Target(running.port, running.admin)
    names = [f"t{at}" for at in range(count)]
    stock.send(admin, [admin.post("/v1/tenants", {"id": name}) for name in names])
    mint = [admin.post("/v1/tokens", {"tenant_id": name, "role": "owner", "name": "bench"}) for name in names]
    made = [msgspec.json.decode(body, type=Minted) for body in stock.send(admin, mint, keep=True)]
    targets = [Target(running.port, one.secret) for one in made]
    stock.send(admin, [target.get("/v1/tokens/self") for target in targets])
    return targets
