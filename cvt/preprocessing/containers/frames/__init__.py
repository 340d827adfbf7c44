"""Formats of animations, of which the first frame is read."""
