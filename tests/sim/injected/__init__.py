"""Known bugs, put back on purpose: the proof that the simulator and the exhaustive search see what is wrong."""
