"""The deterministic simulator: a whole group in one process, with simulated network, disks, clocks and clients.

One seed decides everything that happens in a run. The protocol core and the performer of its effects are the code that
runs in production. Every invariant of docs/reference/protocol.md is checked while a run goes on.

Read first: `cluster.world` (the phases of a run), then `base.plan` (what can happen), `cluster.host` and
`cluster.process` (what it happens to), and `checkers.invariants` (what must hold).

Three modules drive replicas. Each is for another question:

- `cluster.world` plays one plan: faults, heal, final checks. Short runs, many seeds: `tools.search`, `tools.soak` and
  `tools.pytest_plugin` use it. For: does any random schedule of faults break an invariant?
- `tools.endurance` runs one world for simulated hours under steady load. For: does memory or disk usage grow?
- `tools.exhaustive` tries every order of messages, crashes and recoveries of a few instances, without clients or time.
  For: is there any order of events at all, in a small group, that breaks an invariant?

The packages: `base` (time, plans, settings, counts), `devices` (network, disk), `checkers` (invariants), `workload`
(commands and random plans), `cluster` (replicas, clients, faults) and `tools` (search, shrinking, reports, long runs).
"""
