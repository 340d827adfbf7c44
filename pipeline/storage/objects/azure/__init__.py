"""Azure Blob Storage: az://, abfs:// and abfss://."""
