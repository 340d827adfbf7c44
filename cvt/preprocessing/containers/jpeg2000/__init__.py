"""JPEG 2000 files: components of any width, and what the JP2 container says about them."""
