"""How values, events and records become JSON text and back."""
