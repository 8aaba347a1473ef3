"""Modules at the import paths that the reference library's documentation uses."""
