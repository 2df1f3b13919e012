"""Bootstrap tokens: the ConfigMap cluster-info is signed with each of them, and those whose time is over are deleted.

Source: "Authenticating with Bootstrap Tokens" in the Kubernetes documentation; RFC 7515 for signatures apart from
what they sign. Both controllers are off unless named in --controllers, as upstream's are.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fastkube.client import object_key
from fastkube.controllers.actions import GONE, Action, Delete, Requeue, Update
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import Object, Objects, seconds
from fastkube.controllers.root_ca import CONFIG_MAPS
from fastkube.controllers.runner import Context, Controller, Watch

SECRETS = "v1/secrets"
TOKEN_TYPE = "bootstrap.kubernetes.io/token"
TOKEN_NAMESPACE = "kube-system"
SIGNED_KEY = "kube-public/cluster-info"
SIGNATURE_PREFIX = "jws-kubeconfig-"

_ID = re.compile(r"[a-z0-9]{6}").fullmatch
_SECRET = re.compile(r"[a-z0-9]{16}").fullmatch


class Token(NamedTuple):
    id: str
    secret: str
    signs: bool
    expires: float | None


def token_of(secret: Object) -> Token | None:
    """The bootstrap token in a Secret; None where it is none, or its fields do not fit together."""
    metadata = secret["metadata"]
    if secret.get("type") != TOKEN_TYPE or metadata["namespace"] != TOKEN_NAMESPACE:
        return None
    data = {key: base64.b64decode(value).decode(errors="replace") for key, value in (secret.get("data") or {}).items()}
    identifier, password = data.get("token-id", ""), data.get("token-secret", "")
    if not _ID(identifier) or not _SECRET(password) or metadata["name"] != f"bootstrap-token-{identifier}":
        return None
    try:
        expires = seconds(data["expiration"]) if data.get("expiration") else None
    except ValueError:
        expires = 0.0  # what cannot be read has expired
    return Token(identifier, password, data.get("usage-bootstrap-signing") == "true", expires)


def detached_signature(content: str, token: Token) -> str:
    """A JSON Web Signature (HS256) of `content` without the content itself."""
    header = _encode(f'{{"alg":"HS256","kid":"{token.id}"}}'.encode())
    message = f"{header}.{_encode(content.encode())}"
    digest = hmac.digest(token.secret.encode(), message.encode(), hashlib.sha256)
    return f"{header}..{_encode(digest)}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# ---------------------------------------------------------------- signing


class SigningView(NamedTuple):
    config_map: Object
    secrets: Objects
    now: float


def view_signing(context: Context, _key: str) -> SigningView | None:
    config_map = context.caches.by_key(CONFIG_MAPS, SIGNED_KEY)
    if config_map is None:
        return None
    return SigningView(config_map, context.caches.index(SECRETS, "namespace", TOKEN_NAMESPACE), context.now)


def sign(view: SigningView) -> Sequence[Action]:
    data: dict[str, str] = view.config_map.get("data") or {}
    content = data.get("kubeconfig")
    if content is None:
        return ()
    tokens = [token for secret in view.secrets if (token := token_of(secret)) is not None and token.signs]
    valid = [token for token in tokens if token.expires is None or token.expires > view.now]
    signed = {key: value for key, value in data.items() if not key.startswith(SIGNATURE_PREFIX)}
    for token in sorted(valid):
        signed[f"{SIGNATURE_PREFIX}{token.id}"] = detached_signature(content, token)
    ends = [Requeue(token.expires - view.now) for token in valid if token.expires is not None]
    if signed == data:
        return ends
    return [Update(CONFIG_MAPS, {**view.config_map, "data": signed}), *ends]


def _signed(_caches: Caches, config_map: Object) -> Iterable[str]:
    return (SIGNED_KEY,) if object_key(config_map) == SIGNED_KEY else ()


def _signs(_caches: Caches, secret: Object) -> Iterable[str]:
    return (SIGNED_KEY,) if secret.get("type") == TOKEN_TYPE else ()


# ---------------------------------------------------------------- cleaning


class CleaningView(NamedTuple):
    secret: Object
    now: float


def view_cleaning(context: Context, key: str) -> CleaningView | None:
    secret = context.caches.by_key(SECRETS, key)
    return None if secret is None else CleaningView(secret, context.now)


def clean(view: CleaningView) -> Sequence[Action]:
    token = token_of(view.secret)
    if token is None or token.expires is None:
        return ()
    left = token.expires - view.now
    return [Requeue(left)] if left > 0 else [Delete(SECRETS, view.secret, ignore=GONE)]


def _tokens(_caches: Caches, secret: Object) -> Iterable[str]:
    return (object_key(secret),) if secret.get("type") == TOKEN_TYPE else ()


CONTROLLERS = (
    Controller(
        name="bootstrap-signer-controller",
        watches=(Watch(CONFIG_MAPS, _signed), Watch(SECRETS, _signs, ("namespace",))),
        view=view_signing,
        reconcile=sign,
        optional=True,
    ),
    Controller(
        name="token-cleaner-controller",
        watches=(Watch(SECRETS, _tokens),),
        view=view_cleaning,
        reconcile=clean,
        optional=True,
    ),
)
