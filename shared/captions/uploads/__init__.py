"""Object versions, S3's events, and reading objects."""
