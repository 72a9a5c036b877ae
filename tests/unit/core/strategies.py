"""Values of the protocol for property tests: everything that a correct replica may send or store, in a small group."""

from hypothesis import strategies as st

from pydsm.core.types.ballots import Ballot
from pydsm.core.types.effects import FrontierRecord, InstanceRecord, PurgeRecord, Record, ReservationRecord
from pydsm.core.types.ids import INDEX_MAX, SEQUENCES, Deps, InstanceId, ReplicaId, request_id
from pydsm.core.types.messages import (
    NOP,
    Accept,
    AcceptOk,
    Batch,
    Commit,
    CommitQuery,
    Compacted,
    FetchSnapshot,
    Footprint,
    Frontier,
    Invalidator,
    Message,
    PreAccept,
    PreAcceptOk,
    Prepare,
    PrepareOk,
    Refuse,
    Run,
    SnapshotPiece,
    StateDigest,
    Validate,
    ValidateOk,
    Value,
    Waiting,
)
from pydsm.core.types.status import Status

REPLICAS = 3

replica_ids: st.SearchStrategy[ReplicaId] = st.integers(0, REPLICAS - 1).map(ReplicaId)
indexes = st.one_of(st.integers(1, 20), st.integers(1, INDEX_MAX))
instance_ids: st.SearchStrategy[InstanceId] = st.builds(InstanceId, replica_ids, indexes)
ballots: st.SearchStrategy[Ballot] = st.builds(Ballot, st.one_of(st.integers(0, 5), indexes), replica_ids)
vectors: st.SearchStrategy[Deps] = st.tuples(*[st.one_of(st.just(0), indexes)] * REPLICAS)

keys = st.sampled_from([b"a", b"b", b"c", b"d", b"", "naïve".encode()])
key_columns = st.lists(keys, max_size=4, unique=True).map(tuple)
kinds = st.sampled_from([b"incr", b"sadd"])
footprints: st.SearchStrategy[Footprint] = st.builds(
    Footprint,
    reads=key_columns,
    writes=key_columns,
    updates=st.dictionaries(kinds, key_columns, max_size=2).map(lambda columns: tuple(columns.items())),
    barrier=st.sampled_from([False, False, False, True]),
)

sessions = st.tuples(st.integers(0, (1 << 48) - 1), replica_ids, st.integers(0, (1 << 30) - 1))


@st.composite
def batches(draw: st.DrawFn, footprints: st.SearchStrategy[Footprint] = footprints) -> Batch:
    """Batches of up to three runs of up to three requests."""
    counts = draw(st.lists(st.integers(1, 3), max_size=3))
    runs = tuple(Run(request_id(*draw(sessions), draw(st.integers(0, SEQUENCES - 3))), count) for count in counts)
    commands = draw(st.lists(st.binary(max_size=6), min_size=sum(counts), max_size=sum(counts)))
    return Batch(runs, tuple(commands), draw(footprints), draw(st.integers(0, 1 << 48)))


values: st.SearchStrategy[Value] = st.one_of(st.just(NOP), batches())
invalidators = st.builds(Invalidator, instance_ids, st.booleans())


@st.composite
def prepare_answers(draw: st.DrawFn) -> PrepareOk:
    """Answers with the fields that their status requires."""
    status = draw(st.sampled_from([Status.UNKNOWN, Status.PRE_ACCEPTED, Status.ACCEPTED]))
    id, ballot = draw(instance_ids), draw(ballots)
    voted, value, initial_batch = draw(_content(status))
    return PrepareOk(id, ballot, status, voted, value, draw(vectors), initial_batch, draw(vectors))


@st.composite
def instance_records(draw: st.DrawFn) -> InstanceRecord:
    """Records of instances in every status that is stored."""
    status = draw(st.sampled_from([Status.UNKNOWN, Status.PRE_ACCEPTED, Status.ACCEPTED, Status.COMMITTED]))
    id, promised = draw(instance_ids), draw(ballots)
    voted, value, initial_batch = draw(_content(status))
    return InstanceRecord(id, status, promised, voted, value, draw(vectors), initial_batch, draw(vectors))


def _content(status: Status) -> st.SearchStrategy[tuple[Ballot | None, Value | None, Batch | None]]:
    """The ballot of the vote, the value and the initial batch, as far as a status allows them."""
    no_ballot, no_batch = st.none(), st.none()
    match status:
        case Status.UNKNOWN:
            return st.one_of(st.tuples(no_ballot, no_batch, no_batch), st.tuples(no_ballot, batches(), batches()))
        case Status.PRE_ACCEPTED:
            return st.tuples(no_ballot, batches(), batches())
        case Status.ACCEPTED:
            return st.tuples(ballots, values, st.one_of(no_batch, batches()))
        case _:
            return st.tuples(st.one_of(no_ballot, ballots), values, st.one_of(no_batch, batches()))


MESSAGES: dict[type[Message], st.SearchStrategy[Message]] = {
    PreAccept: st.builds(PreAccept, instance_ids, batches(), vectors),
    PreAcceptOk: st.builds(PreAcceptOk, instance_ids, vectors),
    Accept: st.builds(Accept, instance_ids, ballots, values, vectors),
    AcceptOk: st.builds(AcceptOk, instance_ids, ballots),
    Commit: st.builds(Commit, instance_ids, values, vectors),
    Prepare: st.builds(Prepare, instance_ids, ballots),
    PrepareOk: prepare_answers(),
    Validate: st.builds(Validate, instance_ids, ballots, batches(), vectors),
    ValidateOk: st.builds(ValidateOk, instance_ids, ballots, st.lists(invalidators, max_size=3).map(tuple)),
    Waiting: st.builds(Waiting, instance_ids, st.integers(0, REPLICAS)),
    Refuse: st.builds(Refuse, instance_ids, ballots, ballots),
    CommitQuery: st.builds(CommitQuery, st.lists(instance_ids, max_size=4).map(tuple)),
    Frontier: st.builds(Frontier, vectors, vectors),
    Compacted: st.builds(Compacted, st.integers(1, INDEX_MAX), vectors),
    FetchSnapshot: st.builds(FetchSnapshot, st.integers(1, INDEX_MAX), st.integers(0, INDEX_MAX)),
    SnapshotPiece: st.builds(
        SnapshotPiece, st.integers(1, INDEX_MAX), st.integers(0, 1 << 30), st.just(1 << 32), st.binary(max_size=9)
    ),
    StateDigest: st.builds(
        StateDigest, st.integers(1, 1 << 39), st.lists(st.binary(min_size=16, max_size=16), max_size=3).map(tuple)
    ),
}
"""Every kind of message."""

messages: st.SearchStrategy[Message] = st.one_of(*MESSAGES.values())

records: st.SearchStrategy[Record] = st.one_of(
    instance_records(),
    st.builds(ReservationRecord, st.integers(0, INDEX_MAX)),
    st.builds(FrontierRecord, vectors, vectors),
    st.builds(PurgeRecord, vectors, st.lists(instance_ids, max_size=3).map(tuple)),
)
