"""The simplest app: it accepts every text."""

from typing import Any

from virtualchain import App


def text_app(name: str = "plain", **options: Any) -> App:
    """Make an app with the magic `st` and the opcode `o` that accepts every text; `options` are `App`'s."""
    app = App(name, **{"magic": b"st", **options})
    app.add(b"o", parse=lambda payload: {"text": payload.decode()})
    return app
