"""One command that shows what a GPU gives: right numbers, speed, whole runs, faults met."""
