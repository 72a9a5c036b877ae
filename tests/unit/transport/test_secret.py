"""The group's secret: which files are taken, and that it is not shown."""

from pathlib import Path

import pytest

from pydsm.core.types.errors import UsageError
from pydsm.transport.secret import GroupSecret, read_secret, warn_if_unauthenticated

VALUE = b"0123456789abcdef"


def written(directory: Path, value: bytes, mode: int = 0o600) -> Path:
    """A file with this in it."""
    file = directory / "secret"
    file.write_bytes(value)
    file.chmod(mode)
    return file


def test_white_space_around_the_secret_does_not_count(tmp_path: Path) -> None:
    proof = GroupSecret(VALUE).proof(b"role", b"said")
    assert read_secret(written(tmp_path, VALUE)).accepts(proof, b"role", b"said")
    assert read_secret(written(tmp_path, b" " + VALUE + b"\r\n\n")).accepts(proof, b"role", b"said")


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666, 0o777])
def test_a_file_that_all_users_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UsageError, match=rf"may be read or changed by every user .*\(mode {mode:04o}\): chmod 600"):
        read_secret(written(tmp_path, VALUE, mode))


def test_file_that_its_group_may_read_is_taken_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_secret(written(tmp_path, VALUE, 0o640))
    assert "may be read or changed by its group (mode 0640)" in caplog.text


@pytest.mark.parametrize("value", [b"", b"\n" * 100, VALUE[:-1], VALUE[:-1] + b"\n", b"x" * 5000])
def test_secret_of_a_wrong_size_is_refused_and_not_shown(tmp_path: Path, value: bytes) -> None:
    with pytest.raises(UsageError, match="must have 16 to 4096; make one with: openssl rand -hex 32") as caught:
        read_secret(written(tmp_path, value))
    assert "0123" not in str(caught.value)


def test_file_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read --secret-file .*none: No such file or directory; give a file"):
        read_secret(tmp_path / "none")
    with pytest.raises(UsageError, match="Is a directory"):
        read_secret(tmp_path)


def test_secret_is_not_printed() -> None:
    assert VALUE.decode() not in f"{GroupSecret(VALUE)!r} {GroupSecret(VALUE)}"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (GroupSecret(VALUE[::-1]), (b"role", b"a", b"b")),
        (GroupSecret(VALUE), (b"other role", b"a", b"b")),
        (GroupSecret(VALUE), (b"role", b"ab")),
        (GroupSecret(VALUE), (b"role", b"", b"ab")),
        (GroupSecret(VALUE), (b"role", b"b", b"a")),
    ],
)
def test_a_proof_is_valid_for_one_secret_one_role_and_one_handshake(
    other: GroupSecret, said: tuple[bytes, ...]
) -> None:
    proof = GroupSecret(VALUE).proof(b"role", b"a", b"b")
    assert not other.accepts(proof, *said)


@pytest.mark.parametrize(
    ("hosts", "warned"),
    [
        (["127.0.0.1", "::1", "127.8.0.1"], ""),
        (["127.0.0.1", "10.0.0.1"], "10.0.0.1"),
        (["0.0.0.0", "::"], "0.0.0.0, ::"),
        (["fe80::1%eth0"], "fe80::1%eth0"),
    ],
)
def test_port_beyond_the_loopback_address_is_warned_about(
    hosts: list[str], warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_unauthenticated(hosts, GroupSecret(VALUE), encrypted=False)
    warn_if_unauthenticated(hosts, None, encrypted=True)
    assert caplog.text == ""
    warn_if_unauthenticated(hosts, None, encrypted=False)
    assert bool(caplog.messages) is bool(warned)
    assert all(f"on {warned} can take part" in message for message in caplog.messages)
