"""Response bodies: bounded while they arrive and while they are decompressed, then read as text."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterable

from holdfast.errors import DurableHttpError
from holdfast.model.http_call import charset_of

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate"})
_CHARSETS = re.compile(
    r"utf-?(8|16|32)([lb]e|-[lb]e)?|(us-)?ascii|latin-?1|iso-8859-\d\d?|windows-125\d|cp125\d|koi8-[ru]|macintosh"
    r"|gb2312|gbk|gb18030|big5(-hkscs)?|euc-(jp|kr)|shift[_-]jis|iso-2022-(jp|kr)",
    re.IGNORECASE,
)
"""Not all that Python knows: some take a time that grows with the square of the length, and it remembers every name
that it was ever asked for."""


async def read_body(chunks: AsyncIterable[bytes], encoding: str, bytes_max: int) -> bytes:
    """Return the whole body, decompressed if its Content-Encoding says so.

    Raises:
        DurableHttpError: if it is over the limit, in an unknown encoding, or damaged.
    """
    compressed = encoding in _COMPRESSIONS
    if not compressed and encoding not in ("", "identity"):
        raise DurableHttpError(
            f"The response body is in the encoding {encoding[:40]!r}, which was not asked for and cannot be read."
        )
    inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
    body = bytearray()
    arrived = 0
    try:
        async for chunk in chunks:
            arrived += len(chunk)
            body += inflater.decompress(chunk, bytes_max + 1 - len(body)) if compressed else chunk
            if max(arrived, len(body)) > bytes_max:
                raise DurableHttpError(
                    f"The response body is over {bytes_max:,} bytes. Ask for less at a time, fetch it in an activity, "
                    "or raise response_bytes_max."
                )
    except zlib.error as error:
        raise DurableHttpError(f"The response body is damaged: it cannot be decompressed ({error}).") from error
    if compressed and arrived and (not inflater.eof or inflater.unused_data):
        raise DurableHttpError("The response body is damaged: its compressed data does not end where the body ends.")
    return bytes(body)


def decode_text(body: bytes, content_type: str) -> str:
    """Return the text in the charset of the Content-Type, or else in UTF-8; what is no text becomes U+FFFD."""
    # With "-sig", a byte order mark is no part of the text.
    fallback = "utf-8-sig"
    charset = charset_of(content_type)
    if charset is None or not _CHARSETS.fullmatch(charset) or charset.lower() in ("utf-8", "utf8"):
        charset = fallback
    try:
        return body.decode(charset, "replace")
    except LookupError:
        return body.decode(fallback, "replace")
