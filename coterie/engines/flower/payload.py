"""Bytes as Flower carries them, raw: a short message in one object, a long one as an Array, sent chunk by chunk."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

SHORT = 1 << 20  # bytes; an array costs four more requests on each of the four ways from daemon to daemon

_RECORD, _BYTES = "coterie", "bytes"
_KIND = "coterie.bytes"  # no array that anybody could load by mistake


def packed(content: bytes) -> RecordDict:
    """The content of a Flower message that carries these bytes."""
    if len(content) <= SHORT:
        return RecordDict({_RECORD: ConfigRecord({_BYTES: content})})
    return RecordDict({_RECORD: ArrayRecord({_BYTES: Array("uint8", (len(content),), _KIND, content)})})


def unpacked(record: RecordDict) -> bytes:
    """The bytes that a message carries.

    Raises:
        ValueError: it is not one that `packed` made.
    """
    if short := record.config_records.get(_RECORD):
        content = short.get(_BYTES)
        if isinstance(content, bytes):
            return content
    if long := record.array_records.get(_RECORD):
        array = long.get(_BYTES)
        if array is not None and (array.stype, array.dtype, array.shape) == (_KIND, "uint8", (len(array.data),)):
            return array.data
    raise ValueError("the message carries no bytes of Coterie's")
