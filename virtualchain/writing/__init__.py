"""Sending inputs: composed here, funded and signed by the node's wallet or by others, and followed."""
