"""Example apps to learn from and to build on."""
