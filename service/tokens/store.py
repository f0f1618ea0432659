"""The table of tokens."""

from service.kernel.tables import Table
from service.tokens.model import Token

TABLES = [Table(Token, ("tenant_id", "id"), 5, "load_tokens", "insert_tokens", "update_tokens")]
