"""Rows where Ray meets the output: those that are known already, and the sink of new ones."""
