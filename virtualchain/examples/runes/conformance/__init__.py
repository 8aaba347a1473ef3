"""Check that the rules do what the reference does: vectors, and recorded blocks through the engine.

`python -m virtualchain.examples.runes.conformance FILE …` does so for files of both.
"""
