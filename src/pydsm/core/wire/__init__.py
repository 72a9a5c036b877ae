"""Encoding of messages and records; batches are forwarded as the bytes in which they were received."""
