"""The policy, and the functions' environment."""
