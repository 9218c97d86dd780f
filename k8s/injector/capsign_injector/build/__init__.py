"""The sidecar, its configuration, and the patch that adds them to the pod. Pure."""
