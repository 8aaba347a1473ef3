"""`StateEngine`, where the published documentation puts it."""

from virtualchain.indexer import StateEngine

__all__ = ["StateEngine"]
