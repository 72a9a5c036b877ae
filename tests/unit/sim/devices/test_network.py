from pydsm.core.types.ids import ReplicaId
from pydsm.core.types.messages import CommitQuery, Message
from pydsm.sim.base.context import Context
from pydsm.sim.devices.handshakes import StartStamp
from pydsm.sim.devices.network import SimulatedNetwork
from tests.unit.sim.worlds import context, i, run

R0, R1, R2 = ReplicaId(0), ReplicaId(1), ReplicaId(2)


class Mail:
    def __init__(self, world: Context) -> None:
        self.world = world
        self.arrived: list[tuple[int, ReplicaId, ReplicaId, Message]] = []
        self.network = SimulatedNetwork(world, self.take, lambda: None)

    def take(self, to: ReplicaId, sender: ReplicaId, message: Message, stamp: StartStamp) -> None:
        self.arrived.append((self.world.schedule.now, to, sender, message))

    def send(self, count: int) -> None:
        for index in range(1, count + 1):
            self.network.send(R0, (R1,), CommitQuery((i(1, index),)))
        run(self.world)


def test_a_message_takes_the_latency_of_its_link() -> None:
    mail = Mail(context())
    mail.send(1)
    ((at_us, to, sender, message),) = mail.arrived
    assert (to, sender, message) == (R1, R0, CommitQuery((i(1, 1),)))
    assert 900 <= at_us <= 1100


def test_an_encoded_message_is_decoded_to_an_equal_new_one() -> None:
    mail = Mail(context(codec_every=1))
    sent = CommitQuery((i(1, 1),))
    mail.network.send(R0, (R1,), sent)
    run(mail.world)
    assert mail.arrived[0][3] == sent
    assert mail.arrived[0][3] is not sent
    assert mail.world.counts.through_bytes == 1


def test_messages_on_a_cut_link_are_lost_until_every_cut_is_restored() -> None:
    mail = Mail(context())
    links = ((0, 1),)
    mail.network.cut(links)
    mail.network.cut(links)
    mail.network.restore(links)
    mail.send(1)
    assert mail.arrived == []
    mail.network.restore(links)
    mail.send(1)
    assert len(mail.arrived) == 1


def test_a_cut_has_one_direction() -> None:
    mail = Mail(context())
    mail.network.cut(((0, 1),))
    mail.network.send(R1, (R0,), CommitQuery(()))
    run(mail.world)
    assert len(mail.arrived) == 1


def test_loss_and_duplication_are_shares_of_the_messages() -> None:
    mail = Mail(context(loss=0.2, duplication=0.3))
    mail.send(2000)
    counts = mail.world.counts
    assert 300 < counts.lost < 500
    assert 450 < counts.doubled < 750
    assert len(mail.arrived) == 2000 - counts.lost + counts.doubled


def test_uneven_delays_reorder_messages() -> None:
    mail = Mail(context(spread="exponential"))
    mail.send(50)
    order = [message for _, _, _, message in mail.arrived]
    assert order != sorted(order, key=lambda message: message.ids)  # type: ignore[union-attr]


def test_a_slow_link_delays_its_messages() -> None:
    mail = Mail(context())
    mail.network.slow(((0, 1),), 50_000)
    mail.send(1)
    assert mail.arrived[0][0] > 50_000


def test_the_heal_ends_all_faults() -> None:
    mail = Mail(context(loss=1.0))
    mail.network.cut(((0, 1),))
    mail.network.slow(((0, 1),), 50_000)
    mail.network.heal()
    mail.send(10)
    assert len(mail.arrived) == 10
    assert max(at_us for at_us, *_ in mail.arrived) < 2000


def test_the_random_numbers_of_a_link_do_not_depend_on_other_links() -> None:
    def arrived_on_first_link(with_others: bool) -> list[Message]:
        mail = Mail(context(loss=0.5))
        for index in range(1, 100):
            mail.network.send(R0, (R1,), CommitQuery((i(1, index),)))
            if with_others:
                mail.network.send(R0, (R2,), CommitQuery(()))
        run(mail.world)
        return [message for _, to, _, message in mail.arrived if to == R1]

    assert arrived_on_first_link(False) == arrived_on_first_link(True)
