"""The deterministic world: one seed decides network, disks, clocks, crashes and clients; every invariant is watched.

Start reading at `world`, which plays a plan in three acts. What happens is in `plan`, where it comes from in
`planning` and `settings`; what it happens to in `host` (processes of the real core), `network`, `disk` and `clients`;
what must be true in `invariants`, `ordering` and `linearizability`. `search` plays many seeds, `shrink` and `story`
make a few lines of one that broke. `pytest_plugin` is for machines of users, `soak` for long nights, and
`exhaustive` leaves nothing to chance.
"""
