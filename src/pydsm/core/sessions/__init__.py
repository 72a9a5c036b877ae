"""Exactly-once execution: client sessions, their windows of executed requests, and the kept results."""
