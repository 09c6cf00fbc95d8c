"""The URIs that outgoing requests go to: read once and strictly, so that what is checked is what is called."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from holdfast.errors import DurableHttpError, InvalidInputError

URI_CHARACTERS_MAX = 8_192

_DEFAULT_PORTS = (("http", 80), ("https", 443))
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:@\[\]]*)(?::([0-9]{0,5}))?")
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_NAME_CHARACTERS_MAX = 253
_SAFE_IN_PATH = "/%!$&'()*+,;=:@~"
_SAFE_IN_QUERY = _SAFE_IN_PATH + "?[]"


class HttpUri(msgspec.Struct, frozen=True):
    """An absolute URI in normal form.

    `host` is in lower case and without brackets or a final dot, an IP address in its shortest form. `target` is path
    and query, percent-encoded. There are no credentials, and the fragment, which is never sent, is gone.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and port, as in the header `Host`: without the port if it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if (self.scheme, self.port) in _DEFAULT_PORTS else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port: what credentials are bound to."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.target


def parse_uri(text: str) -> HttpUri:
    """Read an absolute http or https URI.

    Raises:
        InvalidInputError: for anything else. The message does not repeat the URI, which may hold a secret.
    """
    if len(text) > URI_CHARACTERS_MAX:
        raise InvalidInputError(f"The URI has {len(text):,} characters; at most {URI_CHARACTERS_MAX:,} are sent.")
    # `urlsplit` would drop some of these without a word.
    if _CONTROL.search(text) or text != text.strip():
        raise InvalidInputError("The URI has control characters in it, or blanks around it; remove them.")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise InvalidInputError(f"The URI cannot be read: {error}") from None
    default_port = dict(_DEFAULT_PORTS).get(parts.scheme)
    if default_port is None or not parts.netloc:
        raise InvalidInputError("The URI must be absolute and begin with http:// or https://.")
    if "@" in parts.netloc:
        raise InvalidInputError(
            "The URI has credentials in it, which end up in logs and in the history. Use a header, or a token source."
        )
    host, port = split_authority(parts.netloc)
    target = quote(parts.path or "/", safe=_SAFE_IN_PATH)
    if parts.query:
        target += "?" + quote(parts.query, safe=_SAFE_IN_QUERY)
    return HttpUri(parts.scheme, host, default_port if port is None else port, target)


def split_authority(text: str) -> tuple[str, int | None]:
    """Return the host, in the normal form of `HttpUri`, and the port if there is one.

    Raises:
        InvalidInputError: if the text is not `host` or `host:port`.
    """
    found = _AUTHORITY.fullmatch(text)
    if not found:
        raise InvalidInputError("The host cannot be read; write name:port, 192.0.2.1:port or [2001:db8::1]:port.")
    port = int(found[2]) if found[2] else None
    if port is not None and not 0 < port < 65_536:
        raise InvalidInputError(f"The port is {port}; it must be between 1 and 65535.")
    return _normal_host(found[1]), port


def _normal_host(text: str) -> str:
    bare = text.strip("[]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        name = bare.lower().removesuffix(".")
    if text != bare or not _NAME.fullmatch(name) or len(name) > _NAME_CHARACTERS_MAX:
        raise InvalidInputError(
            f"{text[:100]!r} is no host name. A name with other letters than a to z has an ASCII form (xn--...)."
        )
    return name


def resolve_location(base: str, location: str) -> str:
    """Return the absolute URI that a header `Location` means, in the answer to a request for `base`.

    Raises:
        DurableHttpError: if it means none that can be called.
    """
    try:
        if _CONTROL.search(location):
            raise InvalidInputError("It has control characters in it.")
        return str(parse_uri(urljoin(base, location.strip())))
    except ValueError as error:
        shown = re.split(r"[?#]", location, maxsplit=1)[0][:200]
        raise DurableHttpError(f"The server's Location {shown!r} cannot be followed: {error}") from None
