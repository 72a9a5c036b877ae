"""How messages travel between replicas. `base` is the interface, `tcp` the default, `memory` for tests.

`frames` is the wire format. The same contract suite runs against every transport.
"""
