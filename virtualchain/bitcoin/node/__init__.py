"""Blocks from a node, over REST and JSON-RPC."""
