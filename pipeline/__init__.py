"""The data flow: inventory, plan, fetch and decode, infer, write, close, publish."""

__version__ = "0.1.0"
