"""Holdfast under test: simulated time, crashes and failures, for this project and for the apps of its users."""
