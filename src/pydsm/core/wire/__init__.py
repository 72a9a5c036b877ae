"""Messages and records as bytes, and batches that are passed on as the bytes that they came as."""
