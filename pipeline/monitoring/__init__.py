"""What a person looks at after a run: the report, what changed, what is worth a second look."""
