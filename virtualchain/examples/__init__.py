"""Apps to learn from and to build on."""
