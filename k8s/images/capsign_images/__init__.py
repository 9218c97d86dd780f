"""Builds capsign's container images: `python -m capsign_images`, by way of `make images`."""
