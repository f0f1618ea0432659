"""Examples of tokens, for the contract. The secrets are made up; their checksums are wrong on purpose."""

from typing import Any

from service.http.examples import AT, TOKEN_ID, Example, page

SECRET = f"holdt_{TOKEN_ID}_{'x' * 49}"
TOKEN: dict[str, Any] = {
    "id": TOKEN_ID, "tenant_id": "acme", "name": "mail workers", "role": "worker", "queues": ["emails*"],
    "created_at": AT, "created_by": "z9NlJCEoHA5PeMt4", "expires_at": AT + 90 * 86_400_000, "last_used_at": None,
    "revoked_at": None, "revoked_by": None, "replaces": None, "replaced_by": None,
    "last_used_from": None, "last_used_agent": None, "networks": ["10.1.0.0/16"], "not_before": None,
}  # fmt: skip
REVOKED = {**TOKEN, "revoked_at": AT, "revoked_by": "z9NlJCEoHA5PeMt4"}
MINTED = {"token": TOKEN, "secret": SECRET}

EXAMPLES = [
    Example(
        "mintToken",
        {
            "name": "mail workers",
            "role": "worker",
            "queues": ["emails*"],
            "expires_in_days": 90,
            "networks": ["10.1.0.0/16"],
        },
        MINTED,
    ),
    Example("listTokens", None, page(TOKEN)),
    Example("getOwnToken", None, TOKEN),
    Example("revokeOwnToken", None, REVOKED),
    Example("revokeExposedToken", {"token": SECRET}, {"accepted": True}),
    Example("getToken", None, TOKEN),
    Example("rotateToken", {"grace_seconds": 3_600}, {**MINTED, "token": {**TOKEN, "replaces": "z9NlJCEoHA5PeMt4"}}),
    Example("revokeToken", None, REVOKED),
]
