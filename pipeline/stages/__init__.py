"""What Ray executes: decode, infer, write."""
