"""Token Secrets that were made for ServiceAccounts by themselves, of old, and are not used any more, go in two steps.

After a period without use a Secret is marked as invalid, which the API server refuses; after another it is deleted.
Nothing is done before use has been tracked for as long: since when, a ConfigMap of the API server says.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastkube.client.resource import collection_path
from fastkube.controllers.actions import CONFLICT, GONE, Action, Ask, Delete, Patch, Requeue
from fastkube.controllers.caches import Caches
from fastkube.controllers.common import PODS, Object, Objects, is_terminating, seconds
from fastkube.controllers.runner import Context, Controller, Watch, nothing
from fastkube.controllers.serviceaccount import SERVICE_ACCOUNTS
from fastkube.controllers.serviceaccount_tokens import SECRETS, TOKEN_TYPE, account_name

TRACKING = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking"
LAST_USED = "kubernetes.io/legacy-token-last-used"
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"

_ALL = "all"
INTERVAL_S = 24 * 3600.0


class View(NamedTuple):
    candidates: Objects
    """Token Secrets that are old enough to be looked at and that their accounts name."""
    period_s: float
    now: float
    live: dict[str, Any] = {}  # noqa: RUF012 - never changed, only replaced


def view(context: Context, _key: str) -> View:
    caches, period_s = context.caches, context.options.legacy_service_account_token_clean_up_period_s
    found = [
        secret
        for secret in caches.list(SECRETS)
        if secret.get("type") == TOKEN_TYPE
        and not is_terminating(secret)
        and seconds(secret["metadata"]["creationTimestamp"]) < context.now - period_s
        and _is_of_its_account(caches, secret)
    ]
    return View(found, period_s, context.now)


def _is_of_its_account(caches: Caches, secret: Object) -> bool:
    """Whether the account lists the Secret, as it does those that were made by themselves."""
    metadata = secret["metadata"]
    account = caches.get(SERVICE_ACCOUNTS, metadata["namespace"], account_name(secret))
    return account is not None and any(entry.get("name") == metadata["name"] for entry in account.get("secrets") or ())


def reconcile(view: View) -> Sequence[Action]:
    again = Requeue(INTERVAL_S)
    if not view.candidates:
        return [again]
    namespaces = {secret["metadata"]["namespace"] for secret in view.candidates}
    paths = [TRACKING, *(collection_path(PODS, namespace) for namespace in sorted(namespaces))]
    if missing := [path for path in paths if path not in view.live]:
        return [Ask(path) for path in missing]
    since = _date(((view.live[TRACKING] or {}).get("data") or {}).get("since"))
    if since is None or view.now < since + INTERVAL_S + view.period_s:
        return [again]
    limit = datetime.datetime.fromtimestamp(view.now - view.period_s, datetime.UTC).strftime("%Y-%m-%d")
    today = datetime.datetime.fromtimestamp(view.now, datetime.UTC).strftime("%Y-%m-%d")
    actions: list[Action] = []
    for secret in view.candidates:
        metadata = secret["metadata"]
        labels = metadata.get("labels") or {}
        pods = view.live[collection_path(PODS, metadata["namespace"])] or {}
        if labels.get(LAST_USED, "") >= limit or metadata["name"] in _mounted(pods.get("items") or ()):
            continue
        revision = metadata["resourceVersion"]
        if _date(labels.get(INVALID_SINCE)) is None:
            body = {"metadata": {"resourceVersion": revision, "labels": {INVALID_SINCE: today}}}
            actions.append(Patch(SECRETS, secret, body=body, ignore=GONE | CONFLICT))
        elif labels[INVALID_SINCE] < limit:
            actions.append(Delete(SECRETS, secret, resource_version=revision, ignore=GONE | CONFLICT))
    return [*actions, again]


def _date(text: str | None) -> float | None:
    try:
        return datetime.datetime.strptime(text or "", "%Y-%m-%d").replace(tzinfo=datetime.UTC).timestamp()
    except ValueError:
        return None


def _mounted(pods: Iterable[Object]) -> set[str]:
    """Secrets that Pods have as volumes."""
    volumes = (volume for pod in pods for volume in pod["spec"].get("volumes") or ())
    return {str(volume["secret"].get("secretName")) for volume in volumes if volume.get("secret")}


CONTROLLER = Controller(
    name="legacy-serviceaccount-token-cleaner-controller",
    keys=(_ALL,),
    watches=(Watch(SECRETS, nothing), Watch(SERVICE_ACCOUNTS, nothing)),
    view=view,
    reconcile=reconcile,
)
