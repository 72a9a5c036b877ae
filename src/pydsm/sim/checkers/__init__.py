"""What must hold in every step and at the end of a run."""
