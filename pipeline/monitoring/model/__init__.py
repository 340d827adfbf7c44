"""What a person reads about a model that was fine-tuned: its page, and its card."""
