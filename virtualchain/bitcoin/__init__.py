"""Bitcoin: what blocks and scripts say, and the ways by which they come from a node."""
