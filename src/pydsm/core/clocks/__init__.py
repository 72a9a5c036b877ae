"""The time of the group: readings of the members' clocks, and agreed time, which is replicated state."""
