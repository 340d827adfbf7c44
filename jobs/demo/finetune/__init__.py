"""A model of eight classes learns two more, and its table with it."""
