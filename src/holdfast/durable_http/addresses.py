"""Which addresses are on the inside: of this machine, its network or its cloud."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

IpAddress: TypeAlias = IPv4Address | IPv6Address

# `is_global` differs between versions of Python, and answers another question: whether an address may be routed.
_INTERNAL_IPV4 = (
    IPv4Network("0.0.0.0/8"),  # this host
    IPv4Network("168.63.129.16/32"),  # Azure's platform services
    IPv4Network("192.0.0.0/24"),  # protocol assignments; Oracle's metadata service
    IPv4Network("192.88.99.0/24"),  # 6to4 relays, which are no more
    IPv4Network("224.0.0.0/4"),  # multicast
)
_UNICAST_IPV6 = IPv6Network("2000::/3")
_INTERNAL_IPV6 = (
    IPv6Network("2001::/23"),  # protocol assignments; Teredo, which embeds addresses
    IPv6Network("3fff::/20"),  # documentation
)
_NAT64 = IPv6Network("64:ff9b::/96")


def is_internal(address: IpAddress) -> bool:
    """Whether an address is anything but a public one of a single host; one with an IPv4 address in it is as that."""
    if isinstance(address, IPv4Address):
        return not address.is_global or any(address in each for each in _INTERNAL_IPV4)
    embedded = _embedded(address)
    if embedded is not None:
        return is_internal(embedded)
    return address not in _UNICAST_IPV6 or not address.is_global or any(address in each for each in _INTERNAL_IPV6)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 host that the network would deliver to."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
