"""Parts of an open run become files of even size, sorted by uri, and are counted on the way."""
