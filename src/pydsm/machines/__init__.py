"""State machines that can be replicated. `base` is the interface, `kv` the key-value store of the Redis server.

`counters` is the smallest machine with updates that commute.
"""
