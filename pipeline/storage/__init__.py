"""Disks, object stores and the web behind one set of verbs."""
