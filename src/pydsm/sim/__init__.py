"""The deterministic world: one seed decides network, disks, clocks, crashes and clients; every invariant is watched."""
