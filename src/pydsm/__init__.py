"""PyDSM: Egalitarian Paxos for Python. Any state machine, replicated without a leader."""

__version__ = "0.1.0"
