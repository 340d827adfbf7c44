"""Thin entry points: parse, call the pipeline, print, exit."""
