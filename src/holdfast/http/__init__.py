"""The HTTP management API and the HTTP functions of an app, as one ASGI app."""

from holdfast.http.links import sign_link
from holdfast.http.payload import check_status_response, management_payload
from holdfast.http.redaction import RedactSecrets

__all__ = ["RedactSecrets", "check_status_response", "management_payload", "sign_link"]
