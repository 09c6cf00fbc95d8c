"""How programs talk to a task hub: one client over one port, wherever the hub is."""
