"""Egalitarian Paxos: acceptor, proposer, recoverer, execution, and the state that these classes share."""
