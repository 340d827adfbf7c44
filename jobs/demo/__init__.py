"""The demo: a small CvT and a small bucket, run through the real pipeline."""
