"""Bitcoin: parsing blocks, transactions and scripts, and fetching blocks from a node or from its files."""
