"""Runes."""
