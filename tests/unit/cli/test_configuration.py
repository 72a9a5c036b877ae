"""`serve --config`: the content of the file, the precedence of options, and one line for each error in the file."""

import sys
from pathlib import Path

import pytest

from pydsm.cli import serve as verb
from pydsm.cli.configuration import read_options
from pydsm.cli.main import run
from pydsm.cli.serve import ServeOptions, serve
from pydsm.core.types.errors import UsageError
from pydsm.core.types.ids import ReplicaId
from pydsm.transport.address import Address
from pydsm.transport.secret import GroupSecret
from pydsm.transport.tcp import TcpTransport
from tests.certificates import authority
from tests.documents import ROOT, blocks
from tests.unit.transport.starts import PlainStarts

MINIMAL = """
name = "r1"
redis = "127.0.0.1:6001"
data-dir = "data"

[peers]
r1 = "127.0.0.1:7001"
r2 = "127.0.0.1:7002"
"""


def written(directory: Path, text: str) -> Path:
    """A configuration file with this text."""
    file = directory / "r1.toml"
    file.write_text(text)
    return file


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    """Records the settings of `serve` in place of starting a replica."""
    seen: list[ServeOptions] = []

    def keep(settings: ServeOptions) -> ServeOptions:
        seen.append(settings)
        return settings

    monkeypatch.setattr(verb, "_serve", keep)
    monkeypatch.setattr(verb, "run", lambda settings: 0)
    return seen


def test_file_alone_is_enough(tmp_path: Path, served: list[ServeOptions]) -> None:
    assert run(["serve", "--config", str(written(tmp_path, MINIMAL))]) == 0
    assert (served[0].identity.name, served[0].ports.names, served[0].identity.replicas) == ("r1", ("r1", "r2"), 2)
    assert (served[0].listen, served[0].ports.redis) == (Address("127.0.0.1", 7001), Address("127.0.0.1", 6001))
    assert served[0].data_dir == tmp_path / "data"


def test_file_may_begin_with_a_byte_order_mark(tmp_path: Path, served: list[ServeOptions]) -> None:
    assert run(["serve", "--config", str(written(tmp_path, "\ufeff" + MINIMAL))]) == 0
    assert served[0].identity.name == "r1"


def test_native_clients_alone_are_enough(tmp_path: Path, served: list[ServeOptions]) -> None:
    text = MINIMAL.replace('redis = "127.0.0.1:6001"', 'native = "127.0.0.1:6002"')
    assert run(["serve", "--config", str(written(tmp_path, text))]) == 0
    assert (served[0].ports.redis, served[0].ports.native) == (None, Address("127.0.0.1", 6002))


def test_environment_overrides_the_file_and_the_command_line_overrides_both(
    tmp_path: Path, served: list[ServeOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, 'group = "from the file"\nready-lag = 1\nthrifty = true\nlisten = "h:1"\n' + MINIMAL)
    monkeypatch.setenv("PYDSM_GROUP", "from the environment")
    monkeypatch.setenv("PYDSM_READY_LAG", "2")
    monkeypatch.setenv("PYDSM_CONFIG", str(file))
    assert run(["serve", "--ready-lag", "3"]) == 0
    assert (served[0].identity.group, served[0].ports.ready_limits.lag_instances_max) == ("from the environment", 3)
    assert (served[0].thrifty, served[0].listen) == (True, Address("h", 1))
    assert run(["serve", "--no-thrifty"]) == 0
    assert (served[1].thrifty, served[1].ports.ready_limits.lag_instances_max) == (False, 2)


def test_peers_may_be_text_as_on_the_command_line(tmp_path: Path, served: list[ServeOptions]) -> None:
    text = 'name = "b"\nredis = "h:1"\nstorage = "memory"\npeers = "a=h:2,b=h:3"\n'
    assert run(["serve", "--config", str(written(tmp_path, text))]) == 0
    assert (served[0].ports.names, served[0].listen, served[0].data_dir) == (("a", "b"), Address("h", 3), None)


def test_tls_files_are_found_beside_the_file(tmp_path: Path, served: list[ServeOptions]) -> None:
    files = authority().issue("r1")
    for source, name in ((files.cert, "cert.pem"), (files.key, "key.pem"), (files.ca, "ca.pem")):
        (tmp_path / name).write_bytes(source.read_bytes())
    tls = 'tls-cert = "cert.pem"\ntls-key = "key.pem"\ntls-ca = "ca.pem"\n'
    assert run(["serve", "--config", str(written(tmp_path, tls + MINIMAL))]) == 0
    assert len(served) == 1


def secret_of(settings: ServeOptions) -> GroupSecret | None:
    """The secret with which the transport of this replica would be created."""
    made = settings.transport(7, lambda peer, mark: None, PlainStarts(ReplicaId(0), 2))
    assert isinstance(made, TcpTransport)
    assert [str(member) for member in made.validator.me.members] == ["r1=127.0.0.1:7001", "r2=127.0.0.1:7002"]
    return made.validator.me.secret


def test_secret_comes_from_a_file_that_the_file_the_environment_or_the_command_line_names(
    tmp_path: Path, served: list[ServeOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {name: name.encode() * 16 for name in ("a", "b", "c")}
    for name, value in values.items():
        (tmp_path / name).write_bytes(value)
        (tmp_path / name).chmod(0o600)
    config = ["serve", "--config", str(written(tmp_path, 'secret-file = "a"\n' + MINIMAL))]
    assert run(config) == 0
    monkeypatch.setenv("PYDSM_SECRET_FILE", str(tmp_path / "b"))
    assert run(config) == 0
    assert run([*config, "--secret-file", str(tmp_path / "c")]) == 0
    for settings, value in zip(served, values.values(), strict=True):
        secret = secret_of(settings)
        assert secret is not None
        assert secret.accepts(GroupSecret(value).proof(b"role"), b"role")


def test_without_a_secret_file_there_is_no_secret(tmp_path: Path, served: list[ServeOptions]) -> None:
    assert run(["serve", "--config", str(written(tmp_path, MINIMAL))]) == 0
    assert secret_of(served[0]) is None


@pytest.mark.parametrize(
    ("value", "mode", "said"),
    [
        (b"short", 0o600, "holds a group secret of 5 bytes: it must have 16 to 4096"),
        (b"x" * 16, 0o644, "may be read or changed by every user of this computer (mode 0644): chmod 600"),
    ],
)
def test_invalid_secret_is_one_line(
    value: bytes, mode: int, said: str, tmp_path: Path, served: list[ServeOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_bytes(value)
    (tmp_path / "secret").chmod(mode)
    assert run(["serve", "--config", str(written(tmp_path, 'secret-file = "secret"\n' + MINIMAL))]) == 2
    error = capsys.readouterr().err
    assert f"pydsm: --secret-file {tmp_path / 'secret'} {said}" in error
    assert error.count("\n") == 1
    assert served == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('redsi = "h:1"', "has the unknown option 'redsi': did you mean redis?"),
        ("xyzzy = 1", "has the unknown option 'xyzzy': pydsm serve --help lists the options"),
        ('config = "x"', "has the unknown option 'config'"),
        ('ready_lag = "5"', "has the unknown option 'ready_lag': did you mean ready-lag?"),
        ('ready-lag = "5"', "has ready-lag = '5': give a whole number"),
        ("ready-lag = true", "has ready-lag = True: give a whole number"),
        ('thrifty = "yes"', "has thrifty = 'yes': give true or false"),
        ('storage = "tape"', "has storage = 'tape': give one of sqlite, memory, in quotes"),
        ("storage = [1]", "has storage = [1]: give one of sqlite, memory, in quotes"),
        ("redis = 6379", "has redis = 6379: give text in quotes"),
        ("data-dir = 1", "has data-dir = 1: give text in quotes"),
        ("peers = { r1 = 7000 }", "has peers.r1 = 7000: give text in quotes"),
        ("peers = 1", "has peers = 1: give text in quotes"),
        ("[redis]\nhost = 1", "has redis = {'host': 1}: give text in quotes"),
        ("name", "is not TOML: Expected '=' after a key"),
    ],
)
def test_mistake_in_the_file_is_one_line_with_file_key_and_remedy(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], served: list[ServeOptions]
) -> None:
    file = written(tmp_path, text)
    assert run(["serve", "--config", str(file)]) == 2
    error = capsys.readouterr().err
    assert f"pydsm: --config {file} {said}" in error
    assert error.count("\n") == 1
    assert served == []


def test_file_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path, said in (
        (tmp_path / "none", f"cannot read --config {tmp_path / 'none'}: No such file or directory"),
        (tmp_path, f"cannot read --config {tmp_path}: Is a directory"),
        (binary, f"--config {binary} is not TOML"),
    ):
        assert run(["serve", "--config", str(path)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_wrong_variable_of_the_environment_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYDSM_READY_LAG", "many")
    assert run(["serve", "--name", "r1", "--peers", "r1=h:1", "--redis", "h:2"]) == 2
    assert "'--ready-lag'" in capsys.readouterr().err


def test_help_shows_the_variables_of_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["serve", "--help"]) == 0
    said = capsys.readouterr().out
    for variable in ("PYDSM_NAME", "PYDSM_READY_LAG", "PYDSM_TLS_CERT", "PYDSM_CONFIG"):
        assert variable in said


def test_example_of_the_guide_is_a_valid_file(tmp_path: Path) -> None:
    (example,) = blocks(ROOT / "docs/howto/configure.md", "toml")
    options = read_options(written(tmp_path, example), serve)
    assert options["peers"] == "r1=10.0.0.1:7000,r2=10.0.0.2:7000,r3=10.0.0.3:7000"
    assert options["tls_ca"] == str(tmp_path / "certificates/ca.pem")
    assert options["secret_file"] == str(tmp_path / "group.secret")
    assert (options["data_dir"], options["ready_lag"]) == ("/var/lib/pydsm", 500)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tls-cert", "x"], "TLS needs --tls-cert, --tls-key and --tls-ca, all three; see docs/howto/encrypt.md"),
        (["--tls-cert", "x", "--tls-key", "x", "--tls-ca", "x"], "cannot read --tls-cert x: No such file or directory"),
        (
            ["--tls-cert", "x", "--tls-key", "x", "--tls-ca", "x", "--transport", "zeromq"],
            "--transport zeromq does not support TLS: remove the --tls options, or use tcp",
        ),
        (["--transport", "pigeon"], "'pigeon' is not one of"),
        (["--http", "x"], "--http: 'x' is not an address"),
    ],
)
def test_mistake_about_transports_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["serve", "--name", "r1", "--peers", "r1=h:1,r2=h:2", "--redis", "h:3", "--storage", "memory"]
    assert run([*base, *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_missing_pyzmq_is_one_line_with_the_command_that_installs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    base = ["serve", "--name", "r1", "--peers", "r1=h:1", "--redis", "h:3", "--storage", "memory"]
    assert run([*base, "--transport", "zeromq"]) == 2
    assert capsys.readouterr().err == "pydsm: --transport zeromq needs pyzmq: pip install 'pydsm-epaxos[zmq]'\n"


def test_every_option_of_serve_can_be_set_in_a_file(tmp_path: Path) -> None:
    empty = written(tmp_path, "")
    assert read_options(empty, serve) == {}
    with pytest.raises(UsageError, match="did you mean until-stdin-closes"):
        read_options(written(tmp_path, "until-stdin-close = true"), serve)
