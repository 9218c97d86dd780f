"""To the adapter: connections, streams, and the batches on them."""
