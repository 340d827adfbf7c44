"""From the bytes of an image file to normalised pixels, as in the reference."""
