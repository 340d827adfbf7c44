"""What is left to do: the listing minus what is done, cut into waves."""
