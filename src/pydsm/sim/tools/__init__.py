"""Tools that search for violations, shrink and explain them, and run for long. Read `search` first."""
