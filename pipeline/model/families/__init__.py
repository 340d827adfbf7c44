"""The families of networks: a file for each, and the table that names them."""
