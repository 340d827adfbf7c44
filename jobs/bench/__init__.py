"""What a run costs, here or on a cluster, and beside its peers. ``__main__`` has the commands."""
