"""What applications meet: sockets, calls, and what these may hold."""
