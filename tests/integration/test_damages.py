"""A small share of `python -m tests.integration.damages`."""

import logging

import pytest

from tests.integration.damages import judge


async def test_a_replica_with_a_damaged_file_is_correct_or_refuses_with_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "pydsm")
    said: list[str] = []
    assert await judge(4, 1, said.append) == 0, said
    assert any(line.startswith("replica.sqlite-wal: refused") for line in said)
