"""The conversion of a definition: by nothing but another apiVersion, or by a webhook."""

from __future__ import annotations

import binascii
from typing import Any
from urllib.parse import urlsplit

from fastkube.api import field, names
from fastkube.errors import Cause

Object = dict[str, Any]

REVIEW_VERSIONS = ("v1", "v1beta1")
_STRATEGIES = ("None", "Webhook")


def faults(conversion: Object | None, path: str, *, any_bundle: bool = True) -> list[Cause]:
    """`any_bundle`: a caBundle without certificates may stay, or may yet be mended (before the kind is served)."""
    if conversion is None:
        return []
    strategy = conversion.get("strategy") or ""
    if not strategy:
        return [field.required(f"{path}.strategy")]
    found = [] if strategy in _STRATEGIES else [field.not_supported(f"{path}.strategy", strategy, _STRATEGIES)]
    webhook = conversion.get("webhook") or {}
    config, versions = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or []
    if strategy != "Webhook":
        told = "should not be set when strategy is not set to Webhook"
        found += [field.forbidden(f"{path}.webhookClientConfig", told)] if config is not None else []
        return found + ([field.forbidden(f"{path}.conversionReviewVersions", told)] if versions else [])
    if config is None:
        told = "required when strategy is set to Webhook"
        found.append(field.required(f"{path}.webhookClientConfig", told))
    else:
        found += _client_faults(config, f"{path}.webhookClientConfig")
        if not any_bundle and not has_valid_bundle(conversion):
            told = "unable to load root certificates: unable to parse bytes as PEM block"
            found.append(field.invalid(f"{path}.webhookClientConfig.caBundle", config["caBundle"], told))
    return found + _review_faults(versions, f"{path}.conversionReviewVersions")


def has_valid_bundle(conversion: Object) -> bool:
    """Whether the webhook's caBundle holds certificates, or there is none."""
    from cryptography import x509

    bundle = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("caBundle")
    if not bundle:
        return True
    try:
        return bool(x509.load_pem_x509_certificates(binascii.a2b_base64(bundle)))
    except ValueError:
        return False


def _client_faults(config: Object, path: str) -> list[Cause]:
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        return [field.required(path, "exactly one of url or service is required")]
    if url is not None:
        return url_faults(url, f"{path}.url")
    return service_faults(service or {}, f"{path}.service")


def url_faults(url: str, path: str) -> list[Cause]:
    """The URL of a webhook: by TLS, and nothing but a host and a path."""
    form = "; desired format: https://host[/path]"
    try:
        parts = urlsplit(url)
    except ValueError as problem:
        return [field.required(path, f"url must be a valid URL: {problem}{form}")]
    found: list[Cause] = []
    if parts.scheme != "https":
        told = f"'https' is the only allowed URL scheme{form}"
        found.append(field.invalid(path, parts.scheme, told))
    if not parts.netloc:
        found.append(field.invalid(path, parts.netloc, f"host must be specified{form}"))
    if parts.username is not None:
        found.append(
            field.invalid(path, parts.netloc.rpartition("@")[0], "user information is not permitted in the URL")
        )
    if parts.fragment:
        found.append(field.invalid(path, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        found.append(field.invalid(path, parts.query, "query parameters are not permitted in the URL"))
    return found


def service_faults(service: Object, path: str) -> list[Cause]:
    found: list[Cause] = []
    if not service.get("name"):
        found.append(field.required(f"{path}.name", "service name is required"))
    if not service.get("namespace"):
        found.append(field.required(f"{path}.namespace", "service namespace is required"))
    port = service.get("port", 443)
    if told := names.port_number(port):
        found.append(field.invalid(f"{path}.port", port, f"port is not valid: {', '.join(told)}"))
    way = service.get("path")
    return found if way is None else found + _path_faults(way, f"{path}.path")


def _path_faults(way: str, path: str) -> list[Cause]:
    if not way.startswith("/"):
        return [field.invalid(path, way, "must start with a '/'")]
    steps = way[1:].split("/")
    found: list[Cause] = []
    for index, step in enumerate(steps):
        if not step:
            if index != len(steps) - 1:
                found.append(field.invalid(path, way, f"segment[{index}] may not be empty"))
            continue
        found += [field.invalid(path, way, f"segment[{index}]: {told}") for told in names.dns1123_subdomain(step)]
    return found


def _review_faults(versions: list[str], path: str) -> list[Cause]:
    if not versions:
        return [field.required(path)]
    found: list[Cause] = []
    seen: set[str] = set()
    for index, version in enumerate(versions):
        if version in seen:
            found.append(field.invalid(f"{path}[{index}]", version, "duplicate version"))
            continue
        seen.add(version)
        found += [field.invalid(f"{path}[{index}]", version, told) for told in names.dns1035_label(version)]
    if not seen.intersection(REVIEW_VERSIONS):
        found.append(field.invalid(path, versions, f"must include at least one of {', '.join(REVIEW_VERSIONS)}"))
    return found
