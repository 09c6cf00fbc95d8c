"""Runs user code of orchestrators and entities, by hand and from history. Never sees storage, clocks or threads."""
