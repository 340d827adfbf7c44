"""Real servers for the tests: SeaweedFS, a fault-injecting proxy in front of it, a Ray cluster."""
