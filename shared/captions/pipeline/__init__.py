"""One message, from end to end."""
