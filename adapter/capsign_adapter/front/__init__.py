"""Where peers arrive: TLS, identity and the gRPC services."""
