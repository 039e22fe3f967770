"""Which task, models and queue an upload gets."""
