"""Clocks, processes and tables that every benchmark uses."""
