"""What earlier runs did: their manifests, their rows, and an index that tells what is done."""
