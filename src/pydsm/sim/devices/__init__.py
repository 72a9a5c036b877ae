"""Simulated networks and disks, and the faults that they have."""
