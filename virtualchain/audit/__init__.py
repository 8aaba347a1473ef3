"""Check the tables of a deployment against each other and against the digests."""
