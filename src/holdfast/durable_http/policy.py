"""What outgoing requests may reach, and how much of everything they may use."""

from __future__ import annotations

import math

import msgspec

from holdfast.durable_http.addresses import IpAddress, is_internal
from holdfast.errors import ConfigurationError, ForbiddenAddressError, InvalidInputError
from holdfast.model.http_uri import split_authority


class HttpCallPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules for `ctx.call_http`. By default every public host may be called, and nothing internal.

    Internal is what belongs to this machine, its network or its cloud: loopback, private and link-local addresses,
    metadata services, multicast, and whatever else is no public address.

    Raises:
        ConfigurationError: for a value that cannot be meant.
    """

    allowed_hosts: tuple[str, ...] = ()
    """If there are any, no other host is called: names, `*.` and a name for all names below it, or IP addresses, each
    with `:port` if only that port is meant. A host that is named in full may be internal; below a `*.` it may not."""
    allow_internal: bool = False
    """Whether hosts may be internal without being named in full."""
    response_bytes_max: int = 4 * 1024 * 1024
    """One response body, as it arrives and, if it is compressed, after that."""
    redirects_max: int = 5
    """How often one call is sent on to another URI; with 0, a redirect is an answer like any other."""
    timeout_s: float = 100.0
    """One call, with its redirects, unless the call says otherwise."""
    connections_max: int = 100
    """Calls that wait for an answer at the same time; others wait for their turn."""

    def __post_init__(self) -> None:
        for name in ("response_bytes_max", "redirects_max", "connections_max"):
            least = 0 if name == "redirects_max" else 1
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigurationError(f"{name} is {value!r}; it must be a whole number, at least {least}.")
        if type(self.allow_internal) is not bool:
            raise ConfigurationError(f"allow_internal is {self.allow_internal!r}; it must be True or False.")
        if not is_timeout(self.timeout_s):
            raise ConfigurationError(
                f"timeout_s is {self.timeout_s!r}; it must be a number of seconds, more than zero."
            )
        try:
            msgspec.convert(self.allowed_hosts, tuple[str, ...])
        except msgspec.ValidationError:
            raise ConfigurationError(f"allowed_hosts is {self.allowed_hosts!r}; it must be a tuple of texts.") from None
        for entry in self.allowed_hosts:
            _Rule.parse(entry)

    def check_host(self, host: str, port: int) -> None:
        """Refuse a host that is not allowed, before its name is resolved.

        Raises:
            ForbiddenAddressError: saying what would allow it.
        """
        if self.allowed_hosts and not any(rule.matches(host, port) for rule in self._rules()):
            raise ForbiddenAddressError(
                f"{host} (port {port}) may not be called: it is not among allowed_hosts. Nothing was sent to it."
            )

    def check_address(self, host: str, port: int, address: IpAddress) -> None:
        """Refuse an address that a permitted host resolved to.

        Raises:
            ForbiddenAddressError: saying what would allow it.
        """
        if self.allow_internal or not is_internal(address):
            return
        if any(rule.matches(host, port) and not rule.below for rule in self._rules()):
            return
        raise ForbiddenAddressError(
            f"{host} (port {port}) may not be called: its address {address} is internal. Nothing was sent to it. "
            "If it is meant to be called, name it in full in allowed_hosts, or set allow_internal."
        )

    def _rules(self) -> list[_Rule]:
        return [_Rule.parse(entry) for entry in self.allowed_hosts]


class _Rule(msgspec.Struct, frozen=True):
    """One entry of `allowed_hosts`. `below` means every name below the host, and not the host itself."""

    host: str
    port: int | None
    below: bool

    @staticmethod
    def parse(entry: str) -> _Rule:
        name = entry.removeprefix("*.")
        is_bare_ipv6 = name.count(":") > 1 and "[" not in name
        try:
            host, port = split_authority(f"[{name}]" if is_bare_ipv6 else name)
        except InvalidInputError as error:
            raise ConfigurationError(f"{entry!r} in allowed_hosts is no host: {error}") from None
        below = name != entry
        if below and (":" in host or host.rpartition(".")[2].isdigit()):
            raise ConfigurationError(f"{entry!r} in allowed_hosts: there are no names below an address.")
        return _Rule(host, port, below)

    def matches(self, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        return host.endswith(f".{self.host}") if self.below else host == self.host


def is_timeout(seconds: object) -> bool:
    """Whether a value can be a timeout: a finite number of seconds, more than zero."""
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0 and math.isfinite(seconds)
