"""How far a run is: what the workers report, as lines of a log or at the bottom of a terminal."""
