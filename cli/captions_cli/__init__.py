"""The `captions` command."""
