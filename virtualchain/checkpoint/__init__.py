"""Checkpoints: an app's state at a block as a file, made, looked at, and applied to a deployment.

`archive`, `manifest` and `rows` say what the file is, `signing` who vouches for it; `create`, `verify` and
`apply` do the work.
"""
