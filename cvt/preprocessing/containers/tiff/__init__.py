"""TIFF files: what they hold is settled before anything is decoded, and every sample is read."""
