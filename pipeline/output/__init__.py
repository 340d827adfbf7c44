"""Everything below OUT: the open run, the closed ones, and how one becomes the other."""
