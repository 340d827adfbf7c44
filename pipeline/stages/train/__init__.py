"""What Ray executes to train a network: a group of workers, their pictures, what they save."""
