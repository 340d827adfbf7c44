"""What people said of the images of an output: collected beside it, summed up, exchanged with other
tools."""
