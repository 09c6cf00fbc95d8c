"""Outgoing HTTP: one request at a time, within what the operator allows. Waiting and retrying happen elsewhere."""
