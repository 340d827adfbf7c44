"""What callers hand in and get back, also as they know it from transformers and timm."""
