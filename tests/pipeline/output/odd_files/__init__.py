"""Files below OUT that no run wrote, or not so."""
