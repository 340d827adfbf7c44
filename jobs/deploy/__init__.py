"""Files that start the jobs elsewhere, and what takes them to machines without a network."""
