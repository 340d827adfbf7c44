"""The network of a run; no other room knows a particular network."""
