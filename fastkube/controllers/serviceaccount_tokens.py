"""ServiceAccount tokens in Secrets: whoever makes a Secret of that type for an account gets a token without an end.

A Secret names its account in an annotation; it gets the token, the CA and the namespace, and goes with the account.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastkube.api.tokens import LEGACY_ISSUER, KeyRing
from fastkube.client import object_key
from fastkube.client.resource import object_path
from fastkube.controllers.actions import CONFLICT, GONE, Action, Ask, Delete, Update
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import Object, is_terminating
from fastkube.controllers.runner import Context, Controller, Watch
from fastkube.controllers.serviceaccount import SERVICE_ACCOUNTS

SECRETS = "v1/secrets"
TOKEN_TYPE = "kubernetes.io/service-account-token"
ACCOUNT_NAME = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"


class View(NamedTuple):
    secret: Object
    account: Object | None
    root_ca: str
    keys: KeyRing
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def view(context: Context, key: str) -> View | None:
    secret = context.caches.by_key(SECRETS, key)
    if secret is None or not account_name(secret) or is_terminating(secret):
        return None
    keys = context.facts.signers.tokens
    if keys is None:
        return None
    account = context.caches.get(SERVICE_ACCOUNTS, secret["metadata"]["namespace"], account_name(secret))
    return View(secret, account, context.facts.root_ca, keys)


def account_name(secret: Object) -> str:
    """The account that a token Secret is for; "" if it is none."""
    if secret.get("type") != TOKEN_TYPE:
        return ""
    return str((secret["metadata"].get("annotations") or {}).get(ACCOUNT_NAME) or "")


def reconcile(view: View) -> Sequence[Action]:
    secret, account = view.secret, view.account
    metadata = secret["metadata"]
    uid = (metadata.get("annotations") or {}).get(ACCOUNT_UID)
    if account is None or (uid and account["metadata"]["uid"] != uid):
        # the copy may not know of a new account yet: the server decides
        path = object_path(SERVICE_ACCOUNTS, metadata["namespace"], account_name(secret))
        if path not in view.live:
            return [Ask(path)]
        account = view.live[path]
        if account is None or (uid and account["metadata"]["uid"] != uid):
            revision = metadata["resourceVersion"]
            return [Delete(SECRETS, secret, resource_version=revision, ignore=GONE | CONFLICT)]
    data = secret.get("data") or {}
    wanted = {**data, "namespace": data.get("namespace") or _encoded(metadata["namespace"])}
    if view.root_ca:
        wanted["ca.crt"] = _encoded(view.root_ca)
    if not data.get("token"):
        wanted["token"] = _encoded(view.keys.sign(_claims(account, secret)))
    annotations = {**(metadata.get("annotations") or {}), ACCOUNT_UID: account["metadata"]["uid"]}
    if wanted == data and annotations == metadata.get("annotations"):
        return ()
    return [Update(SECRETS, {**secret, "metadata": {**metadata, "annotations": annotations}, "data": wanted})]


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _claims(account: Object, secret: Object) -> dict[str, str]:
    metadata = account["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    private = "kubernetes.io/serviceaccount"
    return {
        "iss": LEGACY_ISSUER,
        f"{private}/namespace": namespace,
        f"{private}/secret.name": secret["metadata"]["name"],
        f"{private}/service-account.name": name,
        f"{private}/service-account.uid": metadata["uid"],
        "sub": f"system:serviceaccount:{namespace}:{name}",
    }


def _tokens(_caches: Caches, secret: Object) -> Iterable[str]:
    return (object_key(secret),) if account_name(secret) else ()


def _secrets_of(caches: Caches, account: Object) -> Iterable[str]:
    secrets = caches.index(SECRETS, "service-account", object_key(account))
    return [object_key(secret) for secret in secrets]


CONTROLLER = Controller(
    name="serviceaccount-token-controller",
    watches=(Watch(SECRETS, _tokens, ("service-account",)), Watch(SERVICE_ACCOUNTS, _secrets_of)),
    view=view,
    reconcile=reconcile,
    workers="concurrent_serviceaccount_token_syncs",
)
