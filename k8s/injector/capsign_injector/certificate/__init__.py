"""The webhook's serving certificate: issued and rotated here, or mounted."""
