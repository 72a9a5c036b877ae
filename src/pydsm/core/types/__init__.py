"""The value types of the core: ids, ballots, messages, records, effects, checkpoints, settings, errors."""
