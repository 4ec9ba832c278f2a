"""What a deployment keeps: items, events, consent, keys, versions. `ServingStore` is all that others use of it.

`open` is the door; `writer` the one thread that writes; the other files are a shelf each, functions over a connection.
"""

from coterie.serving.store.open import ServingStore

__all__ = ["ServingStore"]
