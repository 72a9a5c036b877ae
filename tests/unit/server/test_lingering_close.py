"""Closing after the client has read the last message."""

from pydsm.server import lingering_close
from pydsm.server.lingering_close import close_lingering, remove_lingering
from tests.unit.server.transports import RecordingTransport


async def test_only_the_output_is_ended_and_input_is_still_read() -> None:
    transport = RecordingTransport()
    transport.pause_reading()
    close_lingering(transport)
    assert transport.end == "write_eof"
    assert not transport.is_reading_paused
    remove_lingering(transport)


async def test_beyond_the_limit_connections_are_closed_immediately() -> None:
    transports = [RecordingTransport() for _ in range(lingering_close._CONNECTIONS_MAX + 1)]
    for transport in transports:
        close_lingering(transport)
    assert [transport.end for transport in transports[:-1]] == ["write_eof"] * (len(transports) - 1)
    assert transports[-1].end == "close"
    remove_lingering(transports[0])
    again = RecordingTransport()
    close_lingering(again)
    assert again.end == "write_eof"
    for transport in [*transports, again]:
        remove_lingering(transport)
