"""The project's pages, and the commands that they show."""
