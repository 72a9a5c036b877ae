"""`pydsm pause`, `resume` and `snapshot`: one line with the result or the error."""

import json

import pytest

from pydsm.cli.main import run
from pydsm.core.types.errors import UsageError
from pydsm.runtime.apply_gate import MachinePhase
from tests.ports import free_ports
from tests.unit.cli.test_status import replica, said_by
from tests.unit.runtime.observations import but
from tests.unit.server.test_admin import Pretended


def test_each_verb_reports_its_result_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with replica(maintenance=Pretended()) as address:
        assert run(["pause", address, "--drain", "3"]) == 0
        assert run(["resume", address]) == 0
        assert run(["snapshot", address, "--timeout", "9"]) == 0
    paused, resumed, taken = capsys.readouterr().out.splitlines()
    assert paused == f"{address} is paused; 7 accepted commands are answered after it is resumed"
    assert resumed == f"{address} is running again; 12 waiting batches were executed in 0.25 s"
    assert taken == f"snapshot 3 of {address} is durable: position 1 2 3, 100 bytes, 0.50 s, /data/3.snapshot"


def test_json_is_the_whole_report(capsys: pytest.CaptureFixture[str]) -> None:
    with replica(maintenance=Pretended()) as address:
        assert run(["snapshot", address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["position"] == [1, 2, 3]


@pytest.mark.parametrize("verb", ["pause", "resume", "snapshot"])
def test_refusal_is_one_line_and_exit_status_1(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = Pretended()
    made.trouble = UsageError("the machine is pausing: wait and try again")
    with replica(maintenance=made) as address:
        assert run([verb, address]) == 1
    assert capsys.readouterr().err == f"pydsm: {address}: the machine is pausing: wait and try again\n"


def test_an_unreachable_address_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pause", f"127.0.0.1:{free_ports(1)[0]}"]) == 1
    assert "no connection to" in capsys.readouterr().err


def test_status_shows_a_paused_replica_and_its_waiting_batches(capsys: pytest.CaptureFixture[str]) -> None:
    seen = but(
        phase=MachinePhase.PAUSED,
        machine_fault="the machine did not start: no file",
        apply_queue_batches=1200,
        apply_queue_bytes=5000,
    )
    with replica(lambda: seen) as address:
        assert run(["status", address]) == 0
    said = said_by(capsys)
    assert "not ready: it is paused (the machine did not start: no file): 1200 batches wait to be executed" in said
    assert "machine paused (the machine did not start: no file), 1,200 batches (5,000 bytes) wait for it" in said
