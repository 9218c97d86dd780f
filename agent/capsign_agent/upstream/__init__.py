"""The way to the adapter: connections, streams, and batches on them."""
