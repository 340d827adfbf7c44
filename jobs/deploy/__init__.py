"""Files to start the jobs elsewhere, and what brings them to machines without a network."""
