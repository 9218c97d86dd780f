"""The webhook's serving certificate: made and rotated here, or mounted by others."""
