"""Signed links: whoever holds one may do one thing with one instance, until it expires.

A link needs no key. To follow it shows a page that asks for a confirmation, and only that is what acts: programs that
look through mails follow links, too.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from holdfast.client.client import Client
from holdfast.client.origins import utc_now
from holdfast.errors import ConfigurationError, HoldfastError, InstanceNotRunningError, InvalidInputError
from holdfast.http.errors import Endpoint, Readiness, retry_headers, status_of
from holdfast.http.keys import KeySource, read_keys
from holdfast.http.link_pages import confirmation_page, message_page
from holdfast.http.payload import BASE_PATH
from holdfast.http.routing import paths_of
from holdfast.http.table_links import LINK_OPERATIONS
from holdfast.model.access import check_secret
from holdfast.model.ids import validate_instance_id
from holdfast.model.refs import validate_event_name

LINKS_PATH: Final = f"{BASE_PATH}/links"
_DATA_CHARS_MAX: Final = 2_000
"""Longer URLs do not get through every mail program."""
_RAISE_EVENT: Final = "raiseEvent/"
_SECONDS_DIGITS_MAX: Final = 12

_Act = Callable[[Client, str, Any], Awaitable[None]]


async def _terminate(client: Client, instance_id: str, reason: Any) -> None:
    await client.terminate(instance_id, reason)


async def _suspend(client: Client, instance_id: str, reason: Any) -> None:
    await client.suspend(instance_id, reason)


async def _resume(client: Client, instance_id: str, reason: Any) -> None:
    await client.resume(instance_id, reason)


async def _cancel(client: Client, instance_id: str, reason: Any) -> None:
    await client.cancel(instance_id, reason)


_ACTS: Final[Mapping[str, _Act]] = MappingProxyType(
    {"terminate": _terminate, "suspend": _suspend, "resume": _resume, "cancel": _cancel}
)


class SignedLink(msgspec.Struct, frozen=True):
    """What a link says: the action on the instance, with the payload or reason as JSON, until a second of the epoch."""

    instance_id: str
    action: str
    data: str
    expires_s: int

    def signature(self, secret: str) -> str:
        # As JSON, so that no two links have the same text; with a purpose, so that it serves no other one.
        text = msgspec.json.encode(["holdfast link", "POST", *msgspec.structs.astuple(self)])
        return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()

    def is_signed(self, signature: str, secrets: Sequence[str]) -> bool:
        given = signature.encode("utf-8", "replace")
        # All are compared, so that the time tells nothing.
        matches = [hmac.compare_digest(self.signature(secret).encode(), given) for secret in secrets]
        return any(matches)


def sign_link(
    secret: str | Path, base_url: str, instance_id: str, action: str, data: object = None, *, expires_at: datetime
) -> str:
    """Return a URL that lets whoever holds it do one thing with one instance, as often as they like, until it expires.

    Args:
        secret: one of the `link_secrets` of the host; or its file of keys, which is read, and whose first one signs.
        base_url: where the host can be reached: `https://flows.example.com`, with the prefix of a mounted app.
        action: `raiseEvent/NAME`, `terminate`, `suspend`, `resume` or `cancel`.
        data: the payload of the event, or the reason; it is part of what is signed. An event of one link is taken in
            once, however often it is sent.

    Raises:
        InvalidInputError: if the link could not work.
        ConfigurationError: for a secret that is too short, or a file that has none.
    """
    secret = _newest(secret) if isinstance(secret, Path) else secret
    check_secret("a signed link", secret)
    _check_part(validate_instance_id(instance_id))
    _check_action(action)
    if not base_url.startswith(("http://", "https://")) or any(mark in base_url for mark in "?# "):
        raise InvalidInputError(f"base_url={base_url!r} must be a URL such as https://flows.example.com.")
    if expires_at.tzinfo is None:
        raise InvalidInputError(f"expires_at={expires_at!r} must have a time zone, as datetime.now(UTC) has.")
    if not action.startswith(_RAISE_EVENT) and not isinstance(data, str | None):
        raise InvalidInputError(f"data={data!r} is the reason to {action}, so it must be a text.")
    try:
        text = msgspec.json.encode(data).decode()
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"The data of a link must be plain JSON values: {error}.") from error
    if len(text) > _DATA_CHARS_MAX:
        raise InvalidInputError(f"The data of a link has {len(text)} characters; the most is {_DATA_CHARS_MAX}.")
    link = SignedLink(instance_id, action, text, int(expires_at.timestamp()))
    query = urlencode({"data": text, "exp": link.expires_s, "sig": link.signature(secret)})
    path = f"{LINKS_PATH}/{quote(instance_id, safe=':@')}/{quote(action)}"
    return f"{base_url.rstrip('/')}{path}?{query}"


def _newest(path: Path) -> str:
    secrets = read_keys(path).link_secrets
    if not secrets:
        raise ConfigurationError(
            f"The file of keys {str(path)!r} has no secret for links. Add a table [links] with secrets, newest first."
        )
    return secrets[0]


def _check_action(action: str) -> None:
    if action.startswith(_RAISE_EVENT):
        _check_part(validate_event_name(action.removeprefix(_RAISE_EVENT)))
    elif action not in _ACTS:
        raise InvalidInputError(f"action={action!r} must be {_RAISE_EVENT}NAME, or one of {', '.join(_ACTS)}.")


def _check_part(text: str) -> None:
    if "/" in text or text in (".", ".."):
        raise InvalidInputError(f"{text!r} cannot stand in a link: it would be another path.")


class LinkEndpoints:
    """What answers those who follow a link, and those who then confirm."""

    def __init__(
        self,
        host: Readiness,
        client: Client,
        secrets: Sequence[str],
        now: Callable[[], datetime] = utc_now,
        *,
        keys: KeySource | None = None,
    ) -> None:
        for secret in secrets:
            check_secret("signed links", secret)
        self._host = host
        self._client = client
        self._secrets = tuple(secrets)
        self._keys = keys
        self._now = now

    def routes(self) -> list[Route]:
        """Return nothing if no link can ever be valid."""
        if not self._secrets and (self._keys is None or self._keys.link_secrets() is None):
            return []
        endpoints: Mapping[str, Endpoint] = {"askAboutLink": self.ask, "followLink": self.act}
        return [
            Route(path, endpoints[operation.name], methods=[operation.method])
            for operation in LINK_OPERATIONS
            for path in paths_of(operation)
        ]

    async def ask(self, request: Request) -> Response:
        """Show what the link does, and a button; nothing happens."""
        link = self._valid(request)
        if link is None:
            return _refusal()
        until = datetime.fromtimestamp(link.expires_s, UTC)
        return confirmation_page(link.instance_id, link.action, None if link.data == "null" else link.data, until)

    async def act(self, request: Request) -> Response:
        """Do what the link says."""
        link = self._valid(request)
        if link is None:
            return _refusal()
        data = msgspec.json.decode(link.data)
        try:
            if link.action.startswith(_RAISE_EVENT):
                event = link.action.removeprefix(_RAISE_EVENT)
                # The key makes a link that is used twice harmless.
                key = f"link {request.query_params['sig']}"
                await self._client.raise_event(link.instance_id, event, data, key=key)
            else:
                await _ACTS[link.action](self._client, link.instance_id, data)
        except InstanceNotRunningError as error:
            return message_page("Not any more", str(error), 410)
        except HoldfastError as error:
            status = status_of(error, self._host)
            return message_page("That did not work", str(error), status, retry_headers(status))
        return message_page("Done", f"{link.action} was sent to {link.instance_id}.", 202)

    def _valid(self, request: Request) -> SignedLink | None:
        query = request.query_params
        expires = query.get("exp", "")
        if not (expires.isascii() and expires.isdecimal()) or len(expires) > _SECONDS_DIGITS_MAX:
            return None
        link = SignedLink(
            request.path_params["instance_id"], request.path_params["action"], query.get("data", ""), int(expires)
        )
        in_keys = (self._keys.link_secrets() if self._keys else None) or ()
        is_signed = link.is_signed(query.get("sig", ""), [*self._secrets, *in_keys])
        return link if is_signed and self._now().timestamp() < link.expires_s else None


def _refusal() -> Response:
    return message_page("This link is not valid", "It has expired, or was changed. Ask for a new one.", 403)
