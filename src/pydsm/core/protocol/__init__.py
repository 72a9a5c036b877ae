"""Egalitarian Paxos itself: acceptor, proposer, recoverer, execution, and the state that they share."""
