"""The HTTP management API and the HTTP functions of an app, as one ASGI app."""

from holdfast.http.payload import check_status_response, management_payload

__all__ = ["check_status_response", "management_payload"]
