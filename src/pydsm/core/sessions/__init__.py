"""Exactly once: sessions of clients, the windows of their requests, and the results that are kept."""
