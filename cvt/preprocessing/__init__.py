"""Bytes of an image file become normalised pixels, as the reference does it."""
