"""What clients ask for, and how plans of faults are drawn."""
