"""Long listings, by several requests at once."""
