"""From an ask to the answer that is kept."""
