"""`python -m virtualchain`: the command line."""

from virtualchain.cli import main

main()
