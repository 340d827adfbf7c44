"""What a run costs, here or on a cluster, and next to its peers. ``__main__`` has the commands."""
