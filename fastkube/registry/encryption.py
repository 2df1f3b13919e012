"""Encryption at rest: which values are encrypted by whom (EncryptionConfiguration), and the ciphers themselves.

A value that a provider wrote begins with its name and that of the key, as upstream has it:

    k8s:enc:aesgcm:v1:<key name>:<nonce, ciphertext, tag>       bound to its place in the store
    k8s:enc:aescbc:v1:<key name>:<initialization vector, ciphertext>
    k8s:enc:secretbox:v1:<key name>:<nonce, ciphertext>
    anything else                                               identity

The first provider of a resource writes; all of them read. The first key of a provider writes; all of them read.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import yaml
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

Object = dict[str, Any]

PREFIX = b"k8s:enc:"
_API_VERSION, _KIND = "apiserver.config.k8s.io/v1", "EncryptionConfiguration"
_NONCE_BYTES, _BLOCK_BYTES = 12, 16


class Unreadable(Exception):
    """A stored value that no provider can read."""


class _Cipher(Protocol):
    """`place` is the key in the store; what is bound to it cannot be moved to another."""

    def seal(self, place: bytes, value: bytes) -> bytes: ...

    def open(self, place: bytes, sealed: bytes) -> bytes: ...


# ---------------------------------------------------------------- ciphers


class _AesGcm:
    sizes = (16, 24, 32)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, place: bytes, value: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value, place)

    def open(self, place: bytes, sealed: bytes) -> bytes:
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
        except (InvalidTag, ValueError):
            raise Unreadable("cipher: message authentication failed") from None


class _AesCbc:
    sizes = (16, 24, 32)

    def __init__(self, key: bytes) -> None:
        self._algorithm = algorithms.AES(key)

    def seal(self, place: bytes, value: bytes) -> bytes:
        vector = os.urandom(_BLOCK_BYTES)
        padder = PKCS7(_BLOCK_BYTES * 8).padder()
        encryptor = Cipher(self._algorithm, modes.CBC(vector)).encryptor()
        return vector + encryptor.update(padder.update(value) + padder.finalize()) + encryptor.finalize()

    def open(self, place: bytes, sealed: bytes) -> bytes:
        try:
            decryptor = Cipher(self._algorithm, modes.CBC(sealed[:_BLOCK_BYTES])).decryptor()
            padded = decryptor.update(sealed[_BLOCK_BYTES:]) + decryptor.finalize()
            unpadder = PKCS7(_BLOCK_BYTES * 8).unpadder()
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError:
            raise Unreadable("invalid padding on input") from None


class _SecretBox:
    sizes = (32,)

    def __init__(self, key: bytes) -> None:
        try:
            from nacl.secret import SecretBox
        except ImportError:
            raise ValueError("secretbox: PyNaCl is not installed (pip install 'fastkube[secretbox]')") from None
        self._box = SecretBox(key)

    def seal(self, place: bytes, value: bytes) -> bytes:
        return bytes(self._box.encrypt(value))

    def open(self, place: bytes, sealed: bytes) -> bytes:
        from nacl.exceptions import CryptoError

        try:
            return bytes(self._box.decrypt(sealed))
        except (CryptoError, ValueError):
            raise Unreadable("output array was not large enough for encryption or key is wrong") from None


_CIPHERS: dict[str, Callable[[bytes], _Cipher]] = {"aesgcm": _AesGcm, "aescbc": _AesCbc, "secretbox": _SecretBox}
_KEY_SIZES = {"aesgcm": _AesGcm.sizes, "aescbc": _AesCbc.sizes, "secretbox": _SecretBox.sizes}


# ---------------------------------------------------------------- transformers


class _Writer(NamedTuple):
    """One key of one provider; `prefix` is "" and `cipher` None for identity."""

    prefix: bytes
    cipher: _Cipher | None


class Transformer:
    """What is done to the values of one entry of the configuration."""

    def __init__(self, writers: list[_Writer]) -> None:
        self._writers = writers
        self._first = writers[0]
        self._reads_plain = any(writer.cipher is None for writer in writers)

    def seal(self, place: bytes, value: bytes) -> bytes:
        prefix, cipher = self._first
        return value if cipher is None else prefix + cipher.seal(place, value)

    def open(self, place: bytes, stored: bytes) -> bytes:
        """Raises Unreadable."""
        if not stored.startswith(PREFIX):
            if self._reads_plain:
                return stored
            raise Unreadable("no matching prefix found")
        for prefix, cipher in self._writers:
            if cipher is not None and stored.startswith(prefix):
                return cipher.open(place, stored[len(prefix) :])
        raise Unreadable("no matching prefix found")

    def is_stale(self, stored: bytes) -> bool:
        """Whether the value would be written by another key today."""
        prefix, cipher = self._first
        return stored.startswith(PREFIX) if cipher is None else not stored.startswith(prefix)


class Encryption:
    """An EncryptionConfiguration: the first entry that names a resource says what is done to its values."""

    def __init__(self, document: Object) -> None:
        """Raises ValueError, naming the field, for a document that is none."""
        if document.get("apiVersion") != _API_VERSION or document.get("kind") != _KIND:
            raise ValueError(f"expected an {_KIND} of {_API_VERSION}")
        entries = document.get("resources")
        if not isinstance(entries, list) or not entries:
            raise ValueError("resources: Required value: at least one resource configuration is required")
        self._entries = [_entry(entry, f"resources[{number}]") for number, entry in enumerate(entries)]

    @classmethod
    def load(cls, path: str) -> Encryption:
        """Raises ValueError and OSError."""
        try:
            document = yaml.safe_load(Path(path).read_text())
            return cls(document if isinstance(document, dict) else {})
        except (yaml.YAMLError, ValueError) as problem:
            raise ValueError(f"encryption-provider-config: {path}: {problem}") from None

    def transformer(self, group: str, resource: str) -> Transformer | None:
        """None: the values of this resource are stored as they are."""
        names = (f"{resource}.{group}" if group else resource, f"*.{group}", "*.*")
        for resources, transformer in self._entries:
            if any(name in resources for name in names):
                return transformer
        return None


def _entry(entry: Object, path: str) -> tuple[frozenset[str], Transformer]:
    resources = entry.get("resources")
    if not isinstance(resources, list) or not resources:
        raise ValueError(f"{path}.resources: Required value: at least one resource must be specified")
    for number, name in enumerate(resources):
        _check_resource(str(name), f"{path}.resources[{number}]")
    providers = entry.get("providers")
    if not isinstance(providers, list) or not providers:
        raise ValueError(f"{path}.providers: Required value: at least one provider must be specified")
    writers: list[_Writer] = []
    for number, provider in enumerate(providers):
        writers += _provider(provider, f"{path}.providers[{number}]")
    return frozenset(map(str, resources)), Transformer(writers)


def _check_resource(name: str, path: str) -> None:
    if not name or name != name.lower() or (name != "*.*" and name.count("*") and not name.startswith("*.")):
        problem = "use '*.<group>', '*.*' or the resource's plural name with its group"
        raise ValueError(f"{path}: Invalid value: {name!r}: {problem}")


def _provider(provider: Any, path: str) -> list[_Writer]:
    if not isinstance(provider, dict) or len(provider) != 1:
        raise ValueError(f"{path}: Invalid value: exactly one of aesgcm, aescbc, secretbox and identity must be given")
    (name, told), *_ = provider.items()
    if name == "identity":
        return [_Writer(b"", None)]
    if name == "kms":
        raise ValueError(f"{path}.kms: key management services are not supported; use aesgcm, aescbc or secretbox")
    if name not in _CIPHERS:
        raise ValueError(f"{path}: unknown provider {name!r}")
    keys = (told or {}).get("keys")
    if not isinstance(keys, list) or not keys:
        raise ValueError(f"{path}.{name}.keys: Required value: at least one key must be specified")
    return [_key(name, key, f"{path}.{name}.keys[{number}]") for number, key in enumerate(keys)]


def _key(provider: str, key: Object, path: str) -> _Writer:
    """The secret is never shown."""
    name, secret = key.get("name"), key.get("secret")
    if not name or not isinstance(name, str):
        raise ValueError(f"{path}.name: Required value: key name must be provided")
    if not secret or not isinstance(secret, str):
        raise ValueError(f"{path}.secret: Required value: secret must be provided")
    try:
        raw = base64.b64decode(secret, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{path}.secret: Invalid value: REDACTED: secret must be base64 encoded") from None
    sizes = _KEY_SIZES[provider]
    if len(raw) not in sizes:
        told = f"secret is not of the expected length, got {len(raw)}, expected one of {list(sizes)}"
        raise ValueError(f"{path}.secret: Invalid value: REDACTED: {told}")
    return _Writer(PREFIX + f"{provider}:v1:{name}:".encode(), _CIPHERS[provider](raw))
