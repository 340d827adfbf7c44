"""The runs of an output combined into one, and old ones removed."""
