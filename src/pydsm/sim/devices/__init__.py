"""The simulated network and disks, and their faults."""
