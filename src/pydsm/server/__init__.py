"""Ports for clients. `resp` is the Redis port; read it, then `connection`, then `parser`, `replies` and `commands`."""
