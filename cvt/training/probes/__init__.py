"""Linear classifiers on embeddings that stay as they are."""
