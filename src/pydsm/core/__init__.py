"""The protocol. Pure: events in, effects out; no clock, socket, file or randomness of its own.

Start reading at `replica` (the six verbs), then `protocol/proposer`, `protocol/recoverer`, `protocol/execution`.
"""
