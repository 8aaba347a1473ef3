"""Runes: tokens that live on Bitcoin's outputs, bit for bit as the reference implementation counts them.

`app` follows the network of its deployment; `make_app` builds an app that starts at another height. The rules
are in small files named after what they decide; `execution.py` puts them together. docs/runes.md shows how to
query the tables; docs/protocol/runes.md specifies the rules.
"""

from virtualchain.examples.runes.protocol import make_app

__all__ = ["app", "make_app"]

app = make_app()
