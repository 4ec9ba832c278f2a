"""What the stub app names as its client: nothing runs here, as a node's executor answers without loading an app."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def refuse(_message: Message, _context: Context) -> Message:
    """Reached only where somebody started Flower's own executor beside a node of Coterie's."""
    raise RuntimeError("messages of a federation are answered by `coterie node start`, not by Flower's own executor")
