"""Promises of the token format."""

import re
import tomllib
from io import StringIO
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console
from rich.pretty import pretty_repr

from service.tokens.secret import ALPHABET, PATTERN, Kind, Presented, mask, mint, parse, reject_tag

DOCS = Path(__file__).parents[2] / "docs"
KINDS: tuple[Kind, ...] = get_args(Kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_minted_token_parses_to_its_parts(kind: Kind) -> None:
    for _ in range(200):
        text, parts = mint(kind)
        assert parse(text) == parts
        assert (parts.kind, len(parts.id), len(parts.secret), len(text)) == (kind, 16, 43, 72)


def test_the_format_stays_as_it_is_published() -> None:
    text = "holdt_0123456789ABCDEF_" + "0" * 42 + "z" + "0M9ZU6"
    assert parse(text) == Presented("tenant", "0123456789ABCDEF", "0" * 42 + "z")


def test_the_smallest_and_the_largest_secret_have_the_same_width(monkeypatch: pytest.MonkeyPatch) -> None:
    for byte in (b"\x00", b"\xff"):
        monkeypatch.setattr("secrets.token_bytes", lambda size, byte=byte: byte * size)
        text, parts = mint("tenant")
        assert parse(text) == parts


def test_no_two_tokens_share_an_id_or_a_secret() -> None:
    minted = [mint("tenant")[1] for _ in range(500)]
    assert len({parts.id for parts in minted}) == len({parts.secret for parts in minted}) == 500


def test_every_change_of_one_character_is_noticed() -> None:
    text, _ = mint("tenant")
    others = ALPHABET + "_- \n\0é٣"
    for at, was in enumerate(text):
        assert not any(parse(text[:at] + other + text[at + 1 :]) for other in others if other != was)


def test_every_lost_added_or_swapped_character_is_noticed() -> None:
    text, _ = mint("system")
    for at in range(len(text)):
        assert parse(text[:at] + text[at + 1 :]) is None
        assert parse(text[:at] + "0" + text[at:]) is None
        swapped = text[:at] + text[at : at + 2][::-1] + text[at + 2 :]
        assert swapped == text or parse(swapped) is None


@pytest.mark.parametrize(
    "text", ["", "holdt_", "Bearer x", "holdt_" + "0" * 66, "é" * 72, "\ud800" * 72, "0" * 100_000]
)
def test_what_is_not_a_token_is_refused_without_an_error(text: str) -> None:
    assert parse(text) is None


def test_the_expression_matches_whole_tokens_and_nothing_around_them() -> None:
    tokens = [mint(kind)[0] for kind in KINDS for _ in range(50)]
    assert all(re.fullmatch(PATTERN, text) for text in tokens)
    assert re.findall(PATTERN, f"a={tokens[0]}; b='{tokens[-1]}'\n") == [tokens[0], tokens[-1]]
    for text in (tokens[0] + "0", tokens[0][:-1], tokens[0] + "\n", " " + tokens[0], tokens[0].upper()):
        assert re.fullmatch(PATTERN, text) is None


def test_the_docs_and_the_scanner_rule_publish_the_same_expression() -> None:
    assert f"    {PATTERN}\n" in (DOCS / "tokens.md").read_text()
    (rule,) = tomllib.loads((DOCS / "holdfast.gitleaks.toml").read_text())["rules"]
    assert rule["regex"] == rf"\b({PATTERN})\b"
    text, _ = mint("system")
    found = re.search(rule["regex"], f'TOKEN="{text}"')
    assert found is not None and found[rule["secretGroup"]] == text
    assert any(keyword in text for keyword in rule["keywords"])


def test_the_scanner_rule_finds_every_minted_token_and_nothing_that_is_none() -> None:
    (rule,) = tomllib.loads((DOCS / "holdfast.gitleaks.toml").read_text())["rules"]
    find = re.compile(rule["regex"]).search
    around = ("{}", "export TOKEN={}", '"{}"', "Authorization: Bearer {}\r\n", "https://x/?t={}&y=1", "{}.", "({})")
    for number in range(200):
        text, _ = mint(KINDS[number % len(KINDS)])
        for place in around:
            found = find(place.format(text))
            assert found is not None and found[rule["secretGroup"]] == text
        none = (text[:-1], text + "0", "x" + text, text.upper(), text.replace("_", "-"), text[:22] + text[23:])
        assert not [one for one in none if find(one)]
    prose = (DOCS / "tokens.md").read_text() + (DOCS / "errors.md").read_text() + "holdt_" + "é" * 66
    assert find(prose) is None, "neither do the pages that speak of them"


def test_printing_a_token_shows_its_id_and_never_its_secret() -> None:
    _, parts = mint("tenant")
    page = StringIO()
    Console(file=page, width=200).print(parts)
    for shown in (repr(parts), str(parts), f"{[parts]}", pretty_repr(parts), page.getvalue()):
        assert parts.id in shown and parts.secret not in shown


def test_a_reject_tag_is_four_bytes_of_this_secret_under_this_id() -> None:
    _, one = mint("tenant")
    _, other = mint("tenant")
    tag = reject_tag(one.id, one.secret)
    assert len(tag) == 4 and tag == reject_tag(one.id, one.secret)
    assert tag != reject_tag(one.id, other.secret) and tag != reject_tag(other.id, one.secret)


def test_a_stored_reject_tag_stays_valid() -> None:
    assert reject_tag("0123456789ABCDEF", "0" * 43).hex() == "b76cab5a"


def test_the_mask_hides_every_secret_and_keeps_the_ids() -> None:
    tokens = [mint(kind) for kind in KINDS]
    text = mask(f"GET /?t={tokens[0][0]}&x=1 Authorization: Bearer {tokens[1][0]}, x{tokens[0][0]}y")
    assert not any(parts.secret[:6] in text for _, parts in tokens)
    assert all(f"_{parts.id}_[masked]" in text for _, parts in tokens)
    assert "&x=1 Authorization: Bearer holds_" in text and mask(text) == text


def test_the_mask_hides_what_is_left_of_a_damaged_token() -> None:
    text, parts = mint("tenant")
    tail = parts.secret[-12:]
    damaged = [
        text[:at] + wrong + text[at + 1 :] for at in range(6, 50) for wrong in ("", "-", "é", "_", text[at] + "0")
    ]
    assert not any(tail in mask(one) for one in damaged)
    assert mask(text[:30]) == f"holdt_{parts.id}_[masked]"


def test_the_mask_leaves_other_text_alone() -> None:
    text = "the worker holds_a lease; holdt_ and holds_lease_until=5 stay, like {'a': 'holdt_short'}"
    assert mask(text) == text
