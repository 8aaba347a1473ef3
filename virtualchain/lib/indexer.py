"""`StateEngine`, where the published documentation puts it."""

from virtualchain.engine.engine import StateEngine

__all__ = ["StateEngine"]
