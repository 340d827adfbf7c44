"""Image files as Pillow should get them: whole, bounded, and none of their pixels misread."""
