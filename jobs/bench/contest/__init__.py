"""Our pipeline against its peers, on the same images and weights."""
