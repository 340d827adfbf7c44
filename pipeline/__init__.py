"""The data flow: inventory, plan, fetch and decode, infer, write, close, publish."""
