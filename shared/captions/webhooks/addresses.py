"""Connects to public addresses alone: what an operator names as an endpoint must not lead into the account's network.

A name is resolved once, every address it has is judged, and the connection goes to the address that was judged: a name
that answers otherwise a moment later (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

import httpcore2

_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 addresses within IPv6 that a NAT64 leads to (RFC 6052)."""
_SPECIAL = [ipaddress.ip_network(each) for each in ("192.0.0.0/24", "192.88.99.0/24", "fec0::/10", "3fff::/20")]
"""What some versions of Python take for global (IANA's registries of special-purpose addresses): assignments of
protocols, relays of 6to4, addresses of a site, examples."""


class ForbiddenAddressError(Exception):
    """The endpoint's name leads to an address that is not public."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: not private, loopback, link-local, shared, metadata …

    An IPv6 address that stands for an IPv4 address (mapped, 6to4, Teredo, NAT64) is judged as both.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        within: list[ipaddress.IPv4Address] = [*([ip.ipv4_mapped] if ip.ipv4_mapped else [])]
        within += [ip.sixtofour] if ip.sixtofour else []
        within += list(ip.teredo) if ip.teredo else []
        within += [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)] if ip in _TRANSLATED else []
        if within:
            return all(is_public(str(each)) for each in within)
    special = ip.is_multicast or ip.is_reserved or any(ip in network for network in _SPECIAL)
    return ip.is_global and not special


class PublicOnly(httpcore2.AsyncNetworkBackend):
    """A network backend that refuses what is not public; `loopback` allows this machine itself, for a local stack."""

    def __init__(self, *, loopback: bool = False) -> None:
        self._loopback = loopback
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of a host that answers. Raises ForbiddenAddressError, or as httpcore does."""
        loop = asyncio.get_running_loop()
        try:
            results = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # the latter of a label that is empty or longer than 63 characters
            raise httpcore2.ConnectError(f"{host} has no address: {error}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in results))
        if refused := [address for address in addresses if not self._allowed(address)]:
            raise ForbiddenAddressError(f"{host} leads to {refused[0]}, which is not a public address")
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore2.ConnectError(f"{host} has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """No endpoint is a socket of this machine."""
        raise ForbiddenAddressError("an endpoint is no socket of this machine")

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await asyncio.sleep(seconds)

    def _allowed(self, address: str) -> bool:
        if self._loopback and ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            return True
        return is_public(address)
