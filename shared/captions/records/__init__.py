"""The captions table."""
