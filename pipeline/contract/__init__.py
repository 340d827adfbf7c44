"""What people's scripts rely on: errors and exit codes, specs, columns, and the names below OUT."""
