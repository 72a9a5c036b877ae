"""Which requests of a session are refused behind a refused one, and until when."""

from pydsm.core.types.ids import ReplicaId, request_at, request_id
from pydsm.core.types.messages import Run
from pydsm.server.refused_requests import RefusedRequests

SESSION = request_id(5000, ReplicaId(1), 7, 0)


def run(first: int, count: int = 1, acknowledged: int = 0) -> Run:
    return Run(request_at(SESSION, first), count, acknowledged, first - 1)


def test_requests_behind_a_refused_one_are_refused_until_it_is_retried() -> None:
    refused = RefusedRequests()
    assert not refused.is_ahead(run(1, 10))
    refused.refused(run(1, 10), 4)
    assert refused.is_ahead(run(11))
    assert not refused.is_ahead(run(2))
    assert refused.is_ahead(run(12))
    assert not refused.is_ahead(run(5, 3))
    assert not refused.is_ahead(run(13))


def test_requests_behind_a_refused_one_are_accepted_when_the_client_has_abandoned_it() -> None:
    refused = RefusedRequests()
    refused.refused(run(5), 0)
    assert refused.is_ahead(run(6))
    assert not refused.is_ahead(run(7, acknowledged=6))


def test_the_first_of_several_refused_requests_counts() -> None:
    refused = RefusedRequests()
    refused.refused(run(8), 0)
    refused.refused(run(5), 0)
    assert refused.is_ahead(run(6))
    assert not refused.is_ahead(run(5))
