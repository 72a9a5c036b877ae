"""Replicas, their hosts and clients, put together to a world that is played."""
