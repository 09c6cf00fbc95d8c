"""Where a host is: its URL, checked, and whether a key may travel there."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import msgspec

from holdfast.errors import ConfigurationError


class HostAddress(msgspec.Struct, frozen=True):
    """The root of a host's ASGI app, `http(s)://host:port[/prefix]`, without a slash at its end."""

    url: str


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's own, whatever a name server says."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def parse_address(url: str, *, has_key: bool, allow_insecure: bool) -> HostAddress:
    """Read the URL of a host.

    Raises:
        ConfigurationError: if it is none, has parts that do not belong there, or would carry a key unencrypted to
            another machine. The text never repeats what may be a secret.
    """
    try:
        parts = urlsplit(url)
        hostname = parts.hostname
        port = parts.port
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError("The URL of the host cannot be read; write https://host:port/prefix.") from None
    if parts.scheme not in ("http", "https") or not hostname or not url.isprintable() or " " in url:
        raise ConfigurationError(
            f"The URL of the host begins with {parts.scheme[:20]!r} and names the host {hostname!r}; "
            "write http(s)://host:port/prefix."
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            f"The URL of the host {hostname!r} has a user, a query or a fragment. Leave it out: a key is passed as "
            "key=, and never travels in the URL."
        )
    if has_key and parts.scheme == "http" and not is_loopback(hostname) and not allow_insecure:
        raise ConfigurationError(
            f"The key would travel unencrypted to {hostname!r}. Use https, or pass allow_insecure=True if the network "
            "between is yours alone."
        )
    name = f"[{hostname}]" if ":" in hostname else hostname
    return HostAddress(f"{parts.scheme}://{name}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}")
