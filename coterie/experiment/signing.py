"""Who made a run: an Ed25519 key per installation, and signed manifests.

The key lives in ``$COTERIE_HOME`` (default: ``$XDG_CONFIG_HOME/coterie`` or ``~/.config/coterie``) and is made on first
use. Whoever loads a run chooses whom to trust: the own key always, fingerprints listed one per line in ``trusted_keys``
beside it, or one named for the occasion.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from coterie.errors import EnvironmentFault, RunError
from coterie.files import home, read_bytes, sha256_of, write_text
from coterie.secure.keys import fingerprint

MANIFEST, IDENTITY, TRUSTED = "manifest.json", "identity.pem", "trusted_keys"
CHECKPOINTS = "checkpoint"
RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)

Fault: TypeAlias = Literal["unsigned", "tampered"]
"""What can be wrong with a folder: nobody that is trusted signed it, or it is not what was signed."""


@dataclass(frozen=True)
class Examined:
    """What a run folder says of itself, and what is wrong with that: a sentence for each fault, the first one first.

    `manifest` is empty where there is none that can be read; `signer` is the fingerprint of whoever signed it, None
    where no signature holds.
    """

    manifest: Mapping[str, Any] = field(default_factory=dict)
    signer: str | None = None
    faults: Mapping[Fault, str] = field(default_factory=dict)

    def refuse(self, despite: Collection[str] = ()) -> Examined:
        """Itself, if no fault but those in `despite` was found.

        Raises:
            RunError: there is another one.
        """
        for fault, sentence in self.faults.items():
            if fault not in despite:
                raise RunError(sentence)
        return self


def sign_folder(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``manifest.json``: `facts`, the SHA-256 of every file in `folder`, and a signature over both."""
    key = own_key()
    public = key.public_key().public_bytes(*RAW)
    # Through JSON and back: what is signed is what whoever reads the manifest will see (keys, for one, become text).
    content = json.loads(json.dumps({**facts, "files": _digests(folder), "public_key": public.hex()}))
    signed = {**content, "signature": key.sign(_canonical(content)).hex()}
    write_text(folder / MANIFEST, json.dumps(signed, indent=2, sort_keys=True) + "\n")


def verify_folder(folder: Path, trust: str | None = None, only: Collection[str] | None = None) -> dict[str, Any]:
    """Check a run folder against its manifest and return it.

    Args:
        folder: the run folder.
        trust: fingerprint of a further key to trust, or "any".
        only: the files that are there, of those that were signed; None: all of them.

    Raises:
        RunError: no manifest (unfinished), a wrong signature, an unknown signer, or a file that is missing or changed.
    """
    return dict(examine_folder(folder, trust, only).refuse().manifest)


def examine_folder(
    folder: Path, trust: str | None = None, only: Collection[str] | None = None, despite: Collection[str] = ()
) -> Examined:
    """Check a run folder against its manifest, and say what was found; stops at the first fault not in `despite`.

    Raises:
        RunError: there is no such folder.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder")
    if not (folder / MANIFEST).exists():
        return Examined(faults={"unsigned": f"{folder}: has no {MANIFEST}; {_hint(folder)}"})
    try:
        manifest = _read_manifest(folder)
    except RunError as error:
        return Examined(faults={"tampered": str(error)})
    try:
        signer = _signer(folder, manifest)
    except RunError as error:
        return Examined(manifest, None, {"tampered": str(error)})
    faults: dict[Fault, str] = {}
    if not _trusted(signer, trust):
        told = f"signed by the unknown key {signer}; if you trust its owner, pass --trust {signer}"
        faults["unsigned"] = f"{folder}: {told}"
    if not faults or "unsigned" in despite:
        files = manifest["files"]
        try:
            _check_files(folder, files if only is None else {name: files[name] for name in files if name in only})
        except RunError as error:
            faults["tampered"] = str(error)
    return Examined(manifest, signer, faults)


def _signer(folder: Path, manifest: Mapping[str, Any]) -> str:
    """The fingerprint of the key with which the manifest was signed."""
    content = {key: value for key, value in manifest.items() if key != "signature"}
    try:
        public = bytes.fromhex(manifest["public_key"])
        Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(manifest["signature"]), _canonical(content))
    except (KeyError, TypeError, ValueError, InvalidSignature):
        raise RunError(f"{folder / MANIFEST}: the signature does not match its content; the run was changed") from None
    return fingerprint(public)


def _trusted(signer: str, trust: str | None) -> bool:
    if trust in ("any", signer) or signer in _listed():
        return True
    # No key is made here: who only reads runs needs no identity, nor a folder to keep it in.
    return (home() / IDENTITY).exists() and signer == fingerprint(own_key().public_key().public_bytes(*RAW))


def _listed() -> list[str]:
    """Fingerprints in ``trusted_keys``; none where there is no such file."""
    path = home() / TRUSTED
    return read_bytes(path).decode(errors="replace").split() if path.exists() else []


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, digest in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RunError(f"{folder / MANIFEST}: lists '{name}', which is no file of this folder; the run was changed")
        if not path.is_file():
            raise RunError(f"{path}: missing, but the manifest lists it; restore the run folder or train again")
        if sha256_of(path) != digest:
            raise RunError(f"{path}: changed since it was signed; restore the run folder or train again")


def _hint(folder: Path) -> str:
    unfinished = (folder / "config.toml").exists()
    return f"finish it with: coterie train --resume {folder}" if unfinished else "it is not a run folder"


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(read_bytes(path))
    except ValueError as error:
        raise RunError(f"{path}: truncated or not JSON ({error}); restore the run folder or train again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise RunError(f"{path}: not a manifest of a run; restore the run folder or train again")
    return manifest


def own_key() -> Ed25519PrivateKey:
    """The key of this installation, made on first use.

    Raises:
        EnvironmentFault: it cannot be read, or its folder cannot be written.
    """
    path = home() / IDENTITY
    if path.exists():
        try:
            key = serialization.load_pem_private_key(read_bytes(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
            raise EnvironmentFault(
                f"{path}: not a usable private key ({error}); move it away and a new one is made"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise EnvironmentFault(f"{path}: not an Ed25519 key; move it away and a new one is made")
        return key
    return _new_key(path)


def _new_key(path: Path) -> Ed25519PrivateKey:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: the signing key cannot be written ({error.strerror}); set COTERIE_HOME to a folder that can"
        ) from None
    try:
        # Written in full under another name (mode 0600), then linked: whoever comes second finds a whole key.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".identity.") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
            os.link(file.name, path)
    except FileExistsError:
        return own_key()
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: the signing key cannot be written ({error.strerror}); set COTERIE_HOME to a folder that can"
        ) from None
    return key


def _digests(folder: Path) -> dict[str, str]:
    unsigned = {folder / MANIFEST, *(folder / CHECKPOINTS).rglob("*")}  # checkpoints go once the run is signed
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path not in unsigned)
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
