"""What the other packages of the simulator share: time, plans, settings, counts, violations."""
