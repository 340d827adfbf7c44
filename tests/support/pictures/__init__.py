"""Image files written byte by byte, so that their pixels are known without a decoder."""
