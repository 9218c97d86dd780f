"""The sidecar, its configuration, and the patch that puts them into the pod. Pure."""
