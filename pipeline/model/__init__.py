"""The network of a run: the only room that knows one."""
