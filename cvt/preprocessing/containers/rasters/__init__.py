"""Simple formats, where Pillow takes one variant for another."""
