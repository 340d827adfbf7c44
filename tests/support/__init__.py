"""What tests share: servers and processes, inputs, models to compare with, outputs."""
