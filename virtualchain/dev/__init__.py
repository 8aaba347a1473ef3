"""`virtualchain dev`: a throw-away chain, and an app on it that is loaded again whenever its files change.

One process has the chain, the files and the prompt (`session`). Each time the app is loaded, a new process
imports it (`worker`), and derives its state from the chain in a database of its own, beside the state before.
So nothing of the former code is left, whatever has changed, and a load that fails changes nothing. Pages and
the form for inputs are answered by a third process (`pages`).
"""
