"""Labelled images that are read: what the listing says of them, and one pass over their files."""
