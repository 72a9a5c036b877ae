"""Talking to replicas from outside: `resp` speaks the Redis protocol, `load` drives and checks a group with it."""
