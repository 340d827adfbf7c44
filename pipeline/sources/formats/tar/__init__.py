"""Tars: what unpacks them, what their headers say, and the images in them as items."""
