"""The CPU stage: images fetched and decoded, a row for each, whatever its bytes do."""
