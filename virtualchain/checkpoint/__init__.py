"""Checkpoints: an app's state at a block as a file, which can be created, verified and applied.

`archive` and `manifest` define the file's form, `digests` computes the hashes of its content, and `signing`
shows who vouches for it; `create`, `verify` and `apply` do the work.
"""
