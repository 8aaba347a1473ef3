"""`StateEngine`, at the import path of the published documentation."""

from virtualchain.engine.engine import StateEngine

__all__ = ["StateEngine"]
