"""How values become payloads: the seam behind which the codec room, or a user's own converter, stands."""

from __future__ import annotations

from typing import Any, Protocol


class DataConverter(Protocol):
    """Turns values into JSON text and back."""

    def encode(self, value: object, /) -> str:
        """Return the value as JSON.

        Raises:
            PayloadError: naming the path and the type of what cannot be encoded.
        """
        ...

    def decode(self, text: str, expected_type: Any, /) -> Any:
        """Return the JSON as a value of a type; `Any` gives plain JSON values.

        Raises:
            PayloadError: naming the path of what does not fit the type.
        """
        ...
