"""What a run computes: its work in waves, cut into pieces, through the stages into parts."""
