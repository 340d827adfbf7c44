"""What fine-tuning asks of the room, and what became of it: models that were published."""
