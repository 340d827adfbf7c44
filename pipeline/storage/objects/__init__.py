"""Object stores, each in a place of its own."""
