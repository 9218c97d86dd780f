"""What applications connect to: sockets, the calls on them, and bounds on their memory."""
