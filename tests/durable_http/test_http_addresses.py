"""Which addresses and hosts a policy lets through."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import ConfigurationError
from holdfast.durable_http.addresses import is_internal
from holdfast.durable_http.policy import HttpCallPolicy
from holdfast.errors import ForbiddenAddressError

FAST = settings(max_examples=100, deadline=None, derandomize=True)
IPV4 = st.integers(0, 2**32 - 1) | st.sampled_from(
    [int(IPv4Address(each)) for each in ("127.0.0.1", "10.1.2.3", "169.254.169.254", "224.0.0.1", "8.8.8.8")]
)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "127.8.9.10",
        "168.63.129.16",
        "169.254.169.254",
        "172.31.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_internal_address_is_known_as_such(address: str) -> None:
    assert is_internal(ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"]
)
def test_a_public_address_is_known_as_such(address: str) -> None:
    assert not is_internal(ip_address(address))


@FAST
@given(IPV4, st.integers(0, 2**80 - 1))
def test_an_embedded_address_is_as_internal_as_it_is_by_itself(number: int, rest: int) -> None:
    expected = is_internal(IPv4Address(number))
    assert is_internal(IPv6Address(0xFFFF << 32 | number)) is expected
    assert is_internal(IPv6Address(0x64FF9B << 96 | number)) is expected
    assert is_internal(IPv6Address(0x2002 << 112 | number << 80 | rest)) is expected


@FAST
@given(st.integers(0, 2**32 - 1))
def test_no_version_of_python_lets_more_through_than_its_own_rules(number: int) -> None:
    address = IPv4Address(number)
    inside = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    assert is_internal(address) or not (inside or address.is_reserved or address.is_unspecified)


HOSTS = (
    "api.example",
    "Office.Example.",
    "*.cdn.example",
    "ported.example:8443",
    "10.0.0.5",
    "[fd00::0005]:8080",
    "::1",
)


@pytest.mark.parametrize(
    ("host", "port", "internal_too"),
    [
        ("api.example", 443, True),
        ("office.example", 80, True),
        ("a.b.cdn.example", 443, False),
        ("ported.example", 8443, True),
        ("10.0.0.5", 1, True),
        ("fd00::5", 8080, True),
        ("::1", 80, True),
    ],
)
def test_a_host_on_the_list_is_allowed(host: str, port: int, internal_too: bool) -> None:
    policy = HttpCallPolicy(allowed_hosts=HOSTS)
    policy.check_host(host, port)
    policy.check_address(host, port, ip_address("8.8.8.8"))
    if internal_too:
        policy.check_address(host, port, ip_address("10.0.0.5"))
    else:
        with pytest.raises(ForbiddenAddressError, match=r"10\.0\.0\.5 is internal.*name it in full"):
            policy.check_address(host, port, ip_address("10.0.0.5"))


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("example", 443),
        ("x.api.example", 443),
        ("api.example.evil", 443),
        ("cdn.example", 443),
        ("evilcdn.example", 443),
        ("ported.example", 443),
        ("10.0.0.6", 80),
        ("fd00::5", 80),
        ("167772165", 80),
    ],
)
def test_a_host_that_is_not_on_the_list_is_refused(host: str, port: int) -> None:
    with pytest.raises(ForbiddenAddressError, match="not among allowed_hosts"):
        HttpCallPolicy(allowed_hosts=HOSTS).check_host(host, port)


@pytest.mark.parametrize(
    "settings",
    [
        {"allowed_hosts": "api.example"},
        {"allowed_hosts": (1,)},
        {"allowed_hosts": ("",)},
        {"allowed_hosts": ("*",)},
        {"allowed_hosts": ("*.",)},
        {"allowed_hosts": ("*.0.0.1",)},
        {"allowed_hosts": ("https://api.example",)},
        {"allowed_hosts": ("api.example/path",)},
        {"allowed_hosts": ("user@api.example",)},
        {"allowed_hosts": ("api.example:0",)},
        {"allowed_hosts": ("api.example:99999",)},
        {"allowed_hosts": ("10.0.0.0/8",)},
        {"allow_internal": 1},
        {"redirects_max": -1},
        {"response_bytes_max": 0},
        {"connections_max": True},
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"timeout_s": float("inf")},
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        HttpCallPolicy(**settings)
