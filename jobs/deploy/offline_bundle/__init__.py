"""What a machine without a network lacks to run the jobs, packed into one archive."""
