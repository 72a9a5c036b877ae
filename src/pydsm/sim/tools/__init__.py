"""Searching for violations, shrinking them, showing them, and long runs. Start with `search`."""
