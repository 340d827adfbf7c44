"""Which IP addresses the internet reaches; all others belong to somebody's own network."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


# From IANA's registries of special-purpose addresses, IPv4 and IPv6, with multicast and the tunnels
# that have been given up (6to4, Teredo). Python's own tables differ from release to release.
_INNER = _networks(
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
    "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)  # fmt: skip
_REACHED_NEVERTHELESS = _networks(
    "192.0.0.9/32", "192.0.0.10/32",
    "2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:3::/32", "2001:4:112::/48",
    "2001:20::/28", "2001:30::/28",
)  # fmt: skip
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All IPv6 addresses that the internet routes, but for those that stand for IPv4 ones."""
_STANDING_FOR_IPV4 = _networks("::ffff:0:0/96", "64:ff9b::/96")
"""By their last 32 bits: mapped addresses, and those of NAT64."""
_ISATAP = 0x5EFE
"""Bits 32 to 63 of an address whose last 32 are an IPv4 address; 0x0200 may precede it."""


def is_public(address: str) -> bool:
    """Whether the internet reaches an IP address. Of an IPv6 address that holds an IPv4 address,
    both must be reached, or the one that it stands for."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return _is_reached(ip)
    held = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if any(ip in network for network in _STANDING_FOR_IPV4):
        return _is_reached(held)
    is_isatap = (int(ip) >> 32) & 0xFDFFFFFF == _ISATAP
    return ip in _UNICAST and _is_reached(ip) and (not is_isatap or _is_reached(held))


def _is_reached(ip: Address) -> bool:
    if any(ip in network for network in _REACHED_NEVERTHELESS):
        return True
    return not any(ip in network for network in _INNER)
