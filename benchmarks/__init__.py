"""Measurements of one machine and of Holdfast on it: `python -m benchmarks`."""
