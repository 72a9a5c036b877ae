"""Errors on the command line are one line with the remedy, and exit status 2."""

import logging

import pytest

from pydsm.cli.local_group import free_ports
from pydsm.cli.main import run
from pydsm.cli.serve import _log_to_stderr, parse_members
from pydsm.core.types.errors import UsageError
from pydsm.transport.address import Address
from pydsm.version import __version__

PEERS = "r1=127.0.0.1:7001,r2=127.0.0.1:7002,r3=127.0.0.1:7003"
SERVE = ["serve", "--name", "r1", "--redis", "127.0.0.1:6001", "--storage", "memory"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["serve"],
            "missing: --name NAME, --peers r1=HOST:PORT,r2=..., --redis HOST:PORT or --native HOST:PORT, ",
        ),
        (["nonsense"], "No such command"),
        (["serve", "--nonsense"], "No such option"),
        ([*SERVE, "--peers", PEERS, "--storage", "tape"], "'tape' is not one of"),
        ([*SERVE, "--peers", PEERS, "--storage", "sqlite"], "missing: --data-dir DIR (or --storage memory);"),
        ([*SERVE, "--peers", PEERS, "--name", "r9"], "--name 'r9' is not in --peers, which names r1, r2, r3"),
        ([*SERVE, "--peers", PEERS, "--listen", "somewhere"], "'somewhere' is not an address: write HOST:PORT"),
        ([*SERVE, "--peers", "r1"], "'r1' in --peers is not NAME=HOST:PORT"),
        ([*SERVE, "--peers", "r1=127.0.0.1"], "is not an address"),
        ([*SERVE, "--peers", "r1=127.0.0.1:99999"], "'127.0.0.1:99999' has a port that does not exist: ports are 1 to"),
        ([*SERVE, "--peers", "r1=127.0.0.1:7\u00b2"], "is not an address"),
        ([*SERVE, "--peers", f"r1={'x' * 100_000}:7001"], "is not an address"),
        (
            [*SERVE, "--peers", "r1=127.0.0.1:6001"],
            "127.0.0.1:6001 and --redis 127.0.0.1:6001 are the same port",
        ),
        (
            [*SERVE, "--peers", PEERS, "--http", "0.0.0.0:7001"],
            "127.0.0.1:7001 and --http 0.0.0.0:7001 are the same",
        ),
        ([*SERVE, "--peers", PEERS, "--ready-lag", "-1"], "--ready-lag is -1: give 0 or more"),
        ([*SERVE, "--peers", PEERS, "--window-bytes", "0"], "--window-bytes is 0: give 1 or more"),
        ([*SERVE, "--peers", "r1\x1b[31m=127.0.0.1:7001"], "has the name 'r1\\x1b[31m': use printable characters"),
        (["demo", "--replicas", "0"], "--replicas must be between 1 and 15, got 0"),
        (["demo", "--conflict", "2"], "--conflict must be between 0 and 1, got 2"),
        (["demo", "--kill", "--storage", "memory"], "--kill needs --storage sqlite"),
        ([*SERVE, "--peers", PEERS, "--batch-commands-max", "0"], "--batch-commands-max is 0: give 1 or more"),
        (["bench", "--replicas", "0"], "--replicas must be between 1 and 15, got 0"),
        (["bench", "--replicas", "3,many"], "--replicas takes whole numbers, separated by commas; got '3,many'"),
        (["bench", "--storage", "tape"], "--storage must be memory, sqlite or both, got 'tape'"),
        (["bench", "--conflict", "0,2"], "share of conflicts must be between 0 and 1, got 2"),
        (["bench", "--load", "rate", "--rate", "0"], "a rate and its time must be above 0"),
        (["bench", "--load", "closed", "--clients", "0"], "a closed loop has between 1 and 1000 clients"),
        (["bench", "--runs", "0"], "--runs must be above 0 and at most 1000, got 0"),
        (["bench", "--at", "127.0.0.1:1", "--replicas", "3"], "--at names a running group"),
        (["bench", "--at", "nowhere"], "'nowhere' is not an address"),
        (["bench", "--out", "no-such-directory/r.json"], "there is no directory no-such-directory for r.json"),
        (["bench", "--compare", "no-such-file"], "cannot read no-such-file"),
        (["demo", "--kill", "--replicas", "2"], "--kill needs at least 3 replicas"),
    ],
)
def test_mistake_is_one_line_and_exit_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pydsm: ")
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_bench_reports_an_unreachable_group_immediately(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    assert run(["bench", "--at", f"127.0.0.1:{port}", "--runs", "1"]) == 1
    assert f"--at 127.0.0.1:{port}: Connection refused; is a replica running there" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_a_short_form_for_every_verb(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", option]) == 0
    assert "--peers" in capsys.readouterr().out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"pydsm {__version__}\n"


def test_replica_with_a_percent_sign_in_its_name_logs_it_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    _log_to_stderr("50%s")
    logging.getLogger("pydsm").error("text")
    assert " 50%s ERROR pydsm: text" in capsys.readouterr().err


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    assert "serve" in said
    assert "demo" in said


def test_members_keep_their_order() -> None:
    members = parse_members("b=host:1, a=[::1]:2")
    assert list(members.items()) == [("b", Address("host", 1)), ("a", Address("::1", 2))]


@pytest.mark.parametrize(
    ("peers", "said"), [("a=h:1,a=h:2", "names a twice"), ("a=h:1,b=h:1", "have the same address")]
)
def test_members_are_distinct(peers: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_members(peers)


def test_an_interrupt_is_one_line_and_exit_status_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pydsm.cli.status.fetch", interrupted)
    assert run(["status", "127.0.0.1:1"]) == 130
    assert capsys.readouterr().err == "pydsm: interrupted\n"
