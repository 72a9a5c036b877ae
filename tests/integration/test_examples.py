"""The examples run as their first lines describe, and succeed."""

import asyncio
import subprocess
import sys

from tests.documents import ROOT


async def test_the_ledger_example_is_exact_after_its_replicas_were_killed() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "examples/ledger.py"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(100):
        said, _ = await process.communicate()
    assert (process.returncode, b"exact: 8 accounts" in said) == (0, True), said.decode()
