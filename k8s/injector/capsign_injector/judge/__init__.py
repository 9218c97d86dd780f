"""Whether a pod may have an agent, and what the person who applies it should know. Pure."""
