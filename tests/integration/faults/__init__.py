"""Real processes under real faults: killed, paused, cut off; what their clients saw must be linearizable.

Read `run`, then `faults`; `soak` does it for hours.
"""
