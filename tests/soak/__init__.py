"""Weeks of chain in an hour, with everything that happens to a service meanwhile: `python -m tests.soak`."""
