"""Proofs of what a deployment says, and their checks, which need neither a database nor a node."""
