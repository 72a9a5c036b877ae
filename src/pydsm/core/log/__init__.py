"""The instances of one replica: their conflicts, which of them may leave memory, and the observer of changes."""
