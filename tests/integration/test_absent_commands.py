"""The documentation lists all commands of Redis that PyDSM does not support."""

import re
from pathlib import Path

import pytest

from pydsm.machines.kv import COMMANDS
from pydsm.server.commands import LOCAL_COMMANDS
from pydsm.server.transactions import TRANSACTION_COMMANDS
from tests.integration.real_redis import real_redis

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "redis-commands.md"
WITH_SUBCOMMANDS = ("CLIENT", "COMMAND", "CONFIG", "MEMORY", "OBJECT")


def documented(*, absent: bool) -> set[str]:
    """The commands on the page, with the subcommands that are listed separately."""
    here, _, rest = PAGE.read_text().partition("## Unsupported Redis commands")
    there, _, _ = rest.partition("\n## ")
    return set(re.findall(r"`([A-Z][A-Z_ -]*)`", there if absent else here.partition("## Differences from Redis")[0]))


def test_the_page_names_every_supported_command() -> None:
    names = {name.decode() for name in (*COMMANDS, *LOCAL_COMMANDS, *TRANSACTION_COMMANDS)}
    assert names <= documented(absent=False)
    assert not names & documented(absent=True)


@pytest.mark.redis_cli
async def test_the_page_names_every_unsupported_command_of_redis(tmp_path: Path) -> None:
    async with real_redis(tmp_path) as redis:
        listed = (await redis.ask([b"COMMAND", b"LIST"])).decode().upper().split("\r\n")
    names = {line for line in listed if re.fullmatch(r"[A-Z][A-Z_|-]*", line)}
    assert len(names) > 300
    here = documented(absent=False)
    missing = {
        name.replace("|", " ")
        for name in names
        if "|" not in name or (name.split("|")[0] in WITH_SUBCOMMANDS and name.split("|")[1] not in here)
    }
    assert {name for name in missing if name not in here} - documented(absent=True) == set()
