"""State machines that are declared as a Python class: commands and queries are its decorated methods.

Read `declaration` (what a class declares), then `machine` (how it is executed), `kinds` and `tracking` (its fields),
`snapshots`, `sources` and `guard` (what a command must not do). The public names are in `pydsm`.
"""
