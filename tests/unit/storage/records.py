"""Records for the tests of stores."""

from pydsm.core.types.ballots import Ballot
from pydsm.core.types.effects import InstanceRecord
from pydsm.core.types.ids import InstanceId, ReplicaId, RequestId
from pydsm.core.types.messages import Batch, Footprint, Run
from pydsm.core.types.status import Status
from pydsm.storage.identity import Identity

IDENTITY = Identity(group="test", name="r1", replica=ReplicaId(0), replicas=3)


def instance_record(leader: int, index: int, command: bytes = b"command") -> InstanceRecord:
    """A committed instance of one command."""
    batch = Batch((Run(RequestId(bytes(16)), 1),), (command,), Footprint(writes=(b"key",)), 7)
    id = InstanceId(ReplicaId(leader), index)
    return InstanceRecord(id, Status.COMMITTED, Ballot(0, id.leader), None, batch, (1, 0, 2), batch, (1, 0, 2))
