"""New labels from the scores or embeddings of an output, without reading images."""
