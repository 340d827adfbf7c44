"""Labelled images: what they are labelled, what is known of them, and which are held out."""
