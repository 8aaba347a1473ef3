"""Whether the registry does what the network did: recorded runs through the real engine, hash by hash.

`python -m virtualchain.examples.names.conformance FILE …` says so for files of recorded scenarios.
"""
