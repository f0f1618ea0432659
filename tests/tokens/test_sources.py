"""Where a request comes from: nobody's word counts for it but a trusted proxy's."""

from typing import Any

import pytest

from service.errors import StateError
from service.settings import SettingsError, load
from service.tokens.sources import SOURCES_MAX, Sources, networks

MINUTE_MS = 60_000


def of(peer: str | None, *said: str, trusted: str = "") -> str:
    """The source of a request of `peer` with those X-Forwarded-For headers."""
    client = None if peer is None else (peer, 1)
    headers = [(b"x-forwarded-for", one.encode("latin-1")) for one in said]
    scope: dict[str, Any] = {"client": client, "headers": [(b"host", b"h"), *headers]}
    return Sources(networks(trusted), 1).of(scope)


def test_without_trusted_proxies_the_peer_is_the_source_whatever_it_says() -> None:
    assert of("192.0.2.1") == "192.0.2.1"
    assert of("192.0.2.1", "203.0.113.9") == "192.0.2.1"
    assert of("127.0.0.1", "203.0.113.9") == "127.0.0.1", "the machine itself is no exception"
    assert of(None, "203.0.113.9") == "local"


def test_a_peer_that_is_no_trusted_proxy_is_not_believed() -> None:
    assert of("192.0.2.1", "203.0.113.9", trusted="10.0.0.0/8") == "192.0.2.1"


def test_behind_a_trusted_proxy_the_nearest_address_that_is_none_counts() -> None:
    trusted = "10.0.0.0/8, 2001:db8:1::/48"
    assert of("10.0.0.1", "203.0.113.9", trusted=trusted) == "203.0.113.9"
    assert of("10.0.0.1", "1.1.1.1, 203.0.113.9", trusted=trusted) == "203.0.113.9", "what stands left is invented"
    assert of("10.0.0.1", "1.1.1.1, 203.0.113.9, 10.9.9.9", trusted=trusted) == "203.0.113.9", "two proxies in a row"
    assert of("10.0.0.1", "1.1.1.1", "203.0.113.9", "10.9.9.9", trusted=trusted) == "203.0.113.9", "in two headers"
    assert of("2001:db8:1::7", "203.0.113.9", trusted=trusted) == "203.0.113.9"
    assert of("::ffff:10.0.0.1", "203.0.113.9", trusted=trusted) == "203.0.113.9", "an IPv4 address in IPv6 clothes"
    assert of("10.0.0.1", "203.0.113.9", trusted="::ffff:10.0.0.0/104") == "203.0.113.9", "a network in them"


def test_where_all_are_proxies_the_furthest_of_them_counts() -> None:
    assert of("10.0.0.1", "10.0.0.3, 10.0.0.2", trusted="10.0.0.0/8") == "10.0.0.3"
    assert of("10.0.0.1", trusted="10.0.0.0/8") == "10.0.0.1"


@pytest.mark.parametrize("said", ["", "unknown", "999.1.1.1", "203.0.113.9;", "_hidden", "\xff", "1" * 5000, ",,,"])
def test_what_is_no_address_ends_the_search_at_the_proxy_that_sent_it(said: str) -> None:
    assert of("10.0.0.1", "203.0.113.9, " + said, trusted="10.0.0.0/8") == "10.0.0.1"


@pytest.mark.parametrize("said", ["203.0.113.9:4711", "  203.0.113.9  "])
def test_an_address_may_have_a_port_and_spaces(said: str) -> None:
    assert of("10.0.0.1", said, trusted="10.0.0.0/8") == "203.0.113.9"


def test_an_ipv6_network_is_one_source() -> None:
    assert of("2001:db8:1:2:3:4:5:6") == of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert of("2001:db8:1:3::1") != of("2001:db8:1:2::1")
    assert of("10.0.0.1", "[2001:db8:1:2::9]:443", trusted="10.0.0.1") == "2001:db8:1:2::/64"
    assert of("::ffff:192.0.2.1") == "192.0.2.1"


def test_failures_count_by_source_and_minute() -> None:
    sources = Sources([], 2)
    for source in ("a", "b"):
        sources.fail(source, 0)
        sources.fail(source, 59_999)
        with pytest.raises(StateError) as refused:
            sources.fail(source, 30_000)
        assert (refused.value.code, refused.value.status) == ("auth/throttled", 429)
        assert refused.value.facts["retry_after"] == 30
        sources.fail(source, MINUTE_MS)


def test_the_time_to_wait_is_at_least_a_second() -> None:
    sources = Sources([], 0)
    with pytest.raises(StateError) as refused:
        sources.fail("a", 59_999)
    assert refused.value.facts["retry_after"] == 1


def test_a_flood_of_sources_does_not_fill_the_memory() -> None:
    sources = Sources([], 5)
    for number in range(SOURCES_MAX * 2):
        sources.fail(str(number), 0)
    assert len(sources._failures) <= SOURCES_MAX


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "1.2.3", "::1::2", "/8"])
def test_what_is_no_network_is_refused_as_a_setting(text: str) -> None:
    with pytest.raises(SettingsError, match="trusted_proxies"):
        load(None, {"HOLDFAST__TRUSTED_PROXIES": text}, {})


def test_a_list_of_networks_is_a_setting() -> None:
    text = "10.0.0.0/8, 192.0.2.7,::1"
    assert load(None, {"HOLDFAST__TRUSTED_PROXIES": text}, {}).settings.trusted_proxies == text
    assert [str(one) for one in networks(text)] == ["10.0.0.0/8", "192.0.2.7/32", "::1/128"]
    assert networks("") == []
