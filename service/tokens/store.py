"""The table of tokens."""

from service.kernel.tables import Group, Key, Table
from service.tokens.model import MINTED_BY, Token


def of_parent(token: Token) -> Key | None:
    """The group of the tokens that one token minted."""
    return None if token.created_by is None else (token.tenant_id, token.created_by)


TABLES = [
    Table(
        Token, ("tenant_id", "id"), 5, "load_tokens", "insert_tokens", "update_tokens",
        groups=(Group(MINTED_BY, "tokens_minted_by", of_parent),),
    )
]  # fmt: skip
