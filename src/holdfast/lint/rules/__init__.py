"""The rules, one idea per module."""
