"""The instances of one replica: their conflicts, what may be compacted, and what observers are notified of."""
