"""Real processes under real faults: killed, paused, cut off. The histories of their clients must be linearizable.

Read `run`, then `faults`; `soak` runs for hours.
"""
