"""The agent as a witness of the log: what it has seen must be a part of whatever it sees next."""
