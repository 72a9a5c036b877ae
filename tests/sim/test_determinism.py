"""Same seed, same run: line by line, in any process."""

import os
import subprocess
import sys

import pytest

from pydsm.sim.cluster.world import TraceDigest
from pydsm.sim.tools.search import Search


def digest_in_another_process(hash_seed: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "pydsm", "simulate", "--trace-digest", "--json", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.parametrize("replicas", ["3", "5"])
def test_the_same_seed_gives_the_same_trace_whatever_the_hash_seed(replicas: str) -> None:
    arguments = ("--seed", "11", "--seeds", "3", "--replicas", replicas, "--steps", "3000")
    one, other = (digest_in_another_process(hash_seed, *arguments) for hash_seed in ("1", "4242"))
    assert '"trace_digests"' in one
    assert one == other


def test_tracing_a_run_does_not_change_it() -> None:
    search = Search(replicas=3, steps=2000)
    plan = search.plan(5)
    assert search.play(plan).counts == search.play(plan, TraceDigest()).counts


def test_another_seed_gives_another_trace() -> None:
    digests = set()
    for seed in (1, 2):
        digest = TraceDigest()
        search = Search(replicas=3, steps=1000)
        search.play(search.plan(seed), digest)
        digests.add(digest.hex())
    assert len(digests) == 2
