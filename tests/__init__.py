"""Tests, from the pure rooms to the whole system."""
