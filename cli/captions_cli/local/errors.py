"""What the local stack says when it cannot do its work."""


class StackError(Exception):
    """The local stack cannot be started, or was asked for something it does not have. The message is for people."""
