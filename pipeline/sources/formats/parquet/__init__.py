"""Parquet: what a file holds, what its pages may take, and the images in it as items."""
