"""What can be replicated. `base` is the interface, `kv` the Redis-like store behind the server's port.

`counters` is the smallest machine whose updates truly commute, and the proof that the interface carries a second one.
"""
