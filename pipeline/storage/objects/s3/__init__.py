"""S3: access, and requests of single objects."""
