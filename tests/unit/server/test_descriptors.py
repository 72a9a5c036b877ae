"""How many clients the file descriptors of a replica allow."""

import errno

import pytest

from pydsm.core.types.errors import OperationalError
from pydsm.server.descriptors import ClientCount, Descriptors, clients_that_fit, log_exhaustion, reserve


def test_all_clients_fit_when_the_limit_can_be_raised() -> None:
    assert clients_that_fit(1000, 300, Descriptors(256, 4096)) == (1000, 1300)
    assert clients_that_fit(1000, 300, Descriptors(2000, 4096)) == (1000, 2000)


def test_as_many_clients_as_fit_are_accepted_when_it_cannot() -> None:
    assert clients_that_fit(10_000, 300, Descriptors(256, 1024)) == (724, 1024)


def test_a_replica_without_descriptors_for_clients_does_not_start() -> None:
    with pytest.raises(OperationalError, match=r"300 are for replicas.*ulimit -n.* to 10300"):
        clients_that_fit(10_000, 300, Descriptors(256, 305))
    assert clients_that_fit(2, 300, Descriptors(256, 302)) == (2, 302)


def test_the_reserve_grows_with_the_group() -> None:
    assert reserve(7, 64) - reserve(3, 64) == 32
    assert reserve(3, 64) > 64 + 64


def test_refused_clients_are_logged_in_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    clients = ClientCount(1)
    assert clients.enter()
    assert not clients.enter()
    assert not clients.enter()
    assert caplog.text.count("client was refused") == 1
    clients.leave()
    assert clients.enter()


def test_exhaustion_is_logged_and_other_errors_are_not(caplog: pytest.LogCaptureFixture) -> None:
    assert log_exhaustion({"exception": OSError(errno.EMFILE, "Too many open files")})
    assert "no descriptor is left" in caplog.text
    assert not log_exhaustion({"exception": OSError(errno.EPIPE, "")})
    assert not log_exhaustion({"message": "nothing"})
