"""The commands of simulated clients, and the generators of random plans."""
