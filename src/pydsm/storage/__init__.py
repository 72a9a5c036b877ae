"""Durable storage of one replica: `base` is the interface, `sqlite` the default, `memory` for tests and speed.

Every store passes the same contract tests: tests/unit/storage/test_contract.py.
"""
