"""What survives a crash. `base` is the interface, `sqlite` the default, `memory` for tests and speed.

The same contract suite runs against every store: tests/unit/storage/test_contract.py.
"""
