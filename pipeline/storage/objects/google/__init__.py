"""Google Cloud Storage: gs:// and gcs://."""
