module capsign.test/peer_client

go 1.26.0
