"""The bulk lane: misses that can wait, answered in batches of the endpoint's Batch API at a part of the price."""
