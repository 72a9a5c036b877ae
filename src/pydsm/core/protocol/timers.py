"""Seeded jitter: spreads the timeouts of replicas deterministically, without a source of randomness."""

_MASK = (1 << 64) - 1


def jitter(seed: int, *salt: int, below: int) -> int:
    """An integer in 0 .. `below` - 1, determined by `seed` and `salt` (splitmix64)."""
    state = seed & _MASK
    for number in salt:
        state = _mix((state ^ (number & _MASK)) + 0x9E3779B97F4A7C15 & _MASK)
    return _mix(state) % below


def _mix(state: int) -> int:
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)
