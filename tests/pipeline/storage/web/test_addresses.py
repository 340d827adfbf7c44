"""Which addresses count as public, held against IANA's registries of special-purpose addresses.

``special_addresses.csv`` is what the "IANA IPv4 Special-Purpose Address Registry" and the "IANA
IPv6 Special-Purpose Address Registry" say, without their references and dates.
"""

import csv
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.storage.web.addresses import Address, Network, is_public

with Path(__file__).with_name("special_addresses.csv").open() as file:
    REGISTRY = {
        ipaddress.ip_network(row["block"]): row["globally reachable"]
        for row in csv.DictReader(file)
    }
STANDING_FOR_IPV4 = [ipaddress.ip_network(block) for block in ("::ffff:0:0/96", "64:ff9b::/96")]
ANYWHERE = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::200e"]
NOWHERE = ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "100.100.100.200"]


def samples(block: Network) -> Iterator[Address]:
    """Its first, second, middle and last address."""
    last = block.num_addresses - 1
    return (block[number] for number in sorted({0, min(1, last), last // 2, last}))


def innermost(address: Address) -> Network:
    """The block that says whether an address is reached."""
    blocks = [block for block in REGISTRY if address in block]
    return max(blocks, key=lambda block: block.prefixlen)


@pytest.mark.parametrize("block", REGISTRY, ids=str)
def test_special_addresses(block: Network) -> None:
    for address in samples(block):
        if not any(address in standing for standing in STANDING_FOR_IPV4):
            reached = REGISTRY[innermost(address)] == "True"
            assert is_public(str(address)) == reached, address


@pytest.mark.parametrize("block", REGISTRY, ids=str)
def test_the_addresses_around_special_ones(block: Network) -> None:
    """IPv4 is public where it is not special; of IPv6, only 2000::/3 is."""
    unicast = ipaddress.ip_network("2000::/3")
    for neighbour in (int(block[0]) - 1, int(block[-1]) + 1):
        if not 0 <= neighbour < 2**block.max_prefixlen:
            continue
        address = type(block[0])(neighbour)
        if not any(address in other for other in REGISTRY) and not address.is_multicast:
            assert is_public(str(address)) == (block.version == 4 or address in unicast), address


@pytest.mark.parametrize("address", ANYWHERE)
def test_of_the_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [*NOWHERE, "224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1", "fe80::1%lo", "fec0::1",
     "fd00:ec2::254", "4000::1", "200::1"],
)  # fmt: skip
def test_of_no_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("inner", NOWHERE)
def test_ipv4_addresses_inside_ipv6_ones(inner: str) -> None:
    """Mapped, compatible, translated, NAT64's own and local, 6to4, Teredo (as server, and as
    client, whose bits are inverted), and ISATAP with either of its marks."""
    held = int(ipaddress.ip_address(inner))
    high, low = f"{held >> 16:x}", f"{held & 0xFFFF:x}"
    inverted = held ^ 0xFFFFFFFF
    for address in (
        *(f"{prefix}{high}:{low}" for prefix in (
            "::ffff:", "::", "::ffff:0:", "64:ff9b::", "64:ff9b:1::", "2606:4700::5efe:",
            "2606:4700::200:5efe:", "2606:4700:0:0:0:5efe:")),
        f"2002:{high}:{low}::1",
        f"2001:0:{high}:{low}::1",
        f"2001:0:808:808::{inverted >> 16:x}:{inverted & 0xFFFF:x}",
    ):  # fmt: skip
        assert not is_public(address), address


@pytest.mark.parametrize("form", ["::ffff:808:808", "64:ff9b::808:808", "2606:4700::5efe:808:808"])
def test_public_ipv4_addresses_inside_ipv6_ones(form: str) -> None:
    assert is_public(form)
