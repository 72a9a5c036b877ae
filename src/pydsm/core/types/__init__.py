"""What everything else in the core speaks of: ids, ballots, messages, records, effects, checkpoints, errors."""
