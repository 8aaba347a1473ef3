"""Check that the registry does what the network did: replay recorded runs through the engine, and compare.

`python -m virtualchain.examples.names.conformance FILE …` does so for files of recorded scenarios.
"""
