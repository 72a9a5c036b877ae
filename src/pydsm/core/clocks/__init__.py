"""Time of the group: readings of the members' wall clocks, and agreed time, which is replicated state."""
