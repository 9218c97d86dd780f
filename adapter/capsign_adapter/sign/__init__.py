"""The signing path of the adapter, as numbered steps."""
