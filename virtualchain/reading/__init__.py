"""Read a deployment: its log and state, SQL as of a block, and events as they happen."""
