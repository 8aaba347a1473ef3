"""Blocks from a running node, over REST and JSON-RPC."""
