"""What the commands share: their flags, their messages, their exit codes."""
