"""What a pod is and what it asks for, typed and bounded. Pure."""
