"""Who asks: from a client certificate, an authenticating proxy, a bearer token, or nobody.

The order is upstream's: proxy headers, client certificate, bearer token (static, ServiceAccount, bootstrap, other
issuers, webhook), and, when no credentials at all were given, system:anonymous. Wrong credentials are 401 and never
anonymous. Tokens of other issuers and of the webhook are the only ones that have to be waited for: `Elsewhere`.

The hot path is one dictionary: the whole Authorization header of a known token gives its user. ServiceAccount tokens
are kept there too, for `_RECHECK_S`, after which the account and what the token is bound to are looked up again.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from fastkube import errors
from fastkube.api.field import quote
from fastkube.api.names import dns1123_label, dns1123_subdomain
from fastkube.api.tokens import LEGACY_ISSUER, Claims, InvalidToken, KeyRing
from fastkube.clock import Clock, parse_rfc3339
from fastkube.registry.strategy import UserInfo
from fastkube.server import jose
from fastkube.server.issuers import Anonymous, Identities, Issuer, Refused
from fastkube.server.outbound import Peer
from fastkube.server.proxy_headers import AUTHENTICATED, ProxyHeaders, ProxyIdentity
from fastkube.server.reloading import Watched
from fastkube.server.request import ANONYMOUS, Request
from fastkube.server.token_webhook import TokenWebhook

if TYPE_CHECKING:
    import asyncio

    from fastkube.api.catalog import Catalog
    from fastkube.server.options import ServerOptions
    from fastkube.store import Store

ACCOUNT_PREFIX = "system:serviceaccount:"
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
POD_NAME, POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
NODE_NAME, NODE_UID = "authentication.kubernetes.io/node-name", "authentication.kubernetes.io/node-uid"

_METRIC = "apiserver_authentication_config_controller"
_RECHECK_S = 10.0
_KNOWN_MAX = 10_000
_TERMINATED_GRACE_S = 60.0
"""A token bound to a Pod that is being deleted is good for this long after its deletion time."""

_BOOTSTRAP_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})").fullmatch
_BOOTSTRAP_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]").fullmatch
_INVALIDATED = "service account token has been invalidated"
_INVALID = "invalid bearer token"
_EXTRA_SPACE = "the provided Authorization header contains extra space before the bearer token, and is ignored"
_WEBSOCKET_TOKEN = "base64url.bearer.authorization.k8s.io."


class Elsewhere(Exception):
    """The bearer token is none of the server's own: others must be asked about it."""

    def __init__(self, header: str, token: str) -> None:
        super().__init__()
        self.header = header
        self.token = token


class _Checked(NamedTuple):
    """A token that was verified, to be taken as it is until `until` (wall time)."""

    user: UserInfo
    until: float


class _Verified(NamedTuple):
    """Whose token it is, when it expires, and which of the audiences asked for it is good for."""

    user: UserInfo
    expires: float
    audiences: tuple[str, ...]


class Review(NamedTuple):
    """The answer to a TokenReview: `user` None is not authenticated."""

    user: UserInfo | None
    audiences: tuple[str, ...] = ()
    error: str = ""


class Authenticator:
    """`component_tokens` are tokens made for this process alone, in memory, with the users they stand for."""

    def __init__(
        self,
        options: ServerOptions,
        store: Store,
        catalog: Catalog,
        clock: Clock,
        component_tokens: Mapping[str, UserInfo],
    ) -> None:
        self._options = options
        self._store = store
        self._clock = clock
        self._tokens: dict[str, UserInfo] = {}
        self._checked: dict[str, _Checked] = {}
        self._key_files: tuple[Callable[[], Path], tuple[str, ...]] | None = None
        self._ring: KeyRing | None = None
        self._resources = {name: catalog.get("", name) for name in ("serviceaccounts", "pods", "nodes", "secrets")}
        self._proxies = ProxyHeaders(options) if options.requestheader_client_ca_file else None
        self._anonymous: Anonymous
        self._issuers: dict[str, Issuer]
        self.reload_identities()
        self._webhook: TokenWebhook | None = None
        if options.authentication_token_webhook_config_file:
            peer = Peer.of_kubeconfig(options.authentication_token_webhook_config_file, clock)
            version = options.authentication_token_webhook_version
            self._webhook = TokenWebhook(peer, version, options.audiences)
        for token, user in component_tokens.items():
            self._tokens[f"Bearer {token}"] = _authenticated(user)
        if options.token_auth_file:
            for token, user in read_token_file(Path(options.token_auth_file)).items():
                self._tokens[f"Bearer {token}"] = _authenticated(user)

    def reload_identities(self) -> None:
        """Reads who else is let in; raises ValueError and OSError for a configuration that cannot be used."""
        known = _identities(self._options)
        self._anonymous = known.anonymous
        self._issuers = {config.url: Issuer(config, self._clock) for config in known.issuers}
        self._checked.clear()

    def watched(self) -> list[Watched]:
        """The files that say who else is let in."""
        config, authority = self._options.authentication_config, self._options.oidc_ca_file
        reload = self.reload_identities
        found = [Watched("authentication configuration", [config], reload, _METRIC)] if config else []
        return [*found, Watched("oidc CA", [authority], reload)] if authority else found

    def use_keys(self, signing_file: Callable[[], Path], verifying_files: tuple[str, ...]) -> None:
        """Which keys sign and verify ServiceAccount tokens; they are loaded, and perhaps made, when first needed."""
        self._key_files = (signing_file, verifying_files)

    @property
    def keys(self) -> KeyRing:
        if self._ring is None:
            if self._key_files is None:
                raise errors.unavailable("the keys of service account tokens are not ready")
            signing_file, verifying_files = self._key_files
            self._ring = KeyRing.load(signing_file(), verifying_files)
        return self._ring

    # ---------------------------------------------------------------- the pipeline's question

    def authenticate(self, request: Request) -> UserInfo:
        """The user of a request; raises 401."""
        connection = request.connection
        identity = connection.certificate_user
        if identity is False:
            identity = connection.certificate_user = self._read_certificate(connection.transport)
        if identity is not None:
            if self._proxies is not None and isinstance(identity, ProxyIdentity):
                user = self._proxies.user(request.headers)
                if user is not None:
                    return user
            elif isinstance(identity, UserInfo):
                return identity
        header = request.headers.get("Authorization")
        if header is None:
            header = _websocket_token(request.headers)
            if header is None:
                return self._nobody(request)
        user = self._tokens.get(header)
        if user is not None:
            return user
        return self._slow_token(request, header)

    def good_until(self, request: Request) -> float:
        """Until when (wall time) the credentials of a request that was authenticated stand for the same user; 0 where
        that cannot be told from them alone."""
        identity = request.connection.certificate_user
        if isinstance(identity, UserInfo):
            return 0.0 if isinstance(identity, ProxyIdentity) else math.inf
        header = request.headers.get("Authorization", "")
        if header in self._tokens:
            return math.inf
        checked = self._checked.get(header)
        return checked.until if checked is not None else 0.0

    def _nobody(self, request: Request) -> UserInfo:
        """Who asks without credentials; raises 401 where nobody may."""
        enabled, paths = self._anonymous
        if enabled and (paths is None or request.info.path in paths):
            return ANONYMOUS
        raise errors.unauthorized()

    def _slow_token(self, request: Request, header: str) -> UserInfo:
        now = self._clock.time()
        checked = self._checked.get(header)
        if checked is not None and now < checked.until:
            return checked.user
        scheme, *rest = header.strip().split(" ", 2)
        token = rest[0] if rest else ""
        if scheme.lower() != "bearer" or not token:
            if len(rest) > 1 and scheme.lower() == "bearer":
                request.warnings.append(_EXTRA_SPACE)
            return self._nobody(request)
        user = self._tokens.get(f"Bearer {token}")
        if user is not None:
            return user
        try:
            user, expires, _ = self._check_token(token, self._options.audiences, now)
        except InvalidToken:
            if self._issuers or self._webhook is not None:
                raise Elsewhere(header, token) from None
            raise errors.unauthorized() from None
        self._remember(header, user, min(expires, now + _RECHECK_S))
        return user

    def _remember(self, header: str, user: UserInfo, until: float) -> None:
        if len(self._checked) >= _KNOWN_MAX:
            self._checked.clear()
        self._checked[header] = _Checked(user, until)

    # ---------------------------------------------------------------- others

    async def ask_elsewhere(self, asked: Elsewhere) -> UserInfo:
        """The user of a token that is none of the server's own; raises 401."""
        try:
            user, until, _ = await self._from_elsewhere(asked.token)
        except InvalidToken:
            raise errors.unauthorized() from None
        self._remember(asked.header, user, until)
        return user

    async def _from_elsewhere(self, token: str) -> _Verified:
        """`expires` is how long the answer may be kept. Raises InvalidToken."""
        now, own = self._clock.time(), self._options.audiences
        problem = "unknown token"
        try:
            read = jose.read(token)
            issuer = self._issuers.get(read.claims.get("iss") or "")
            if issuer is not None:
                user, expires = await issuer.authenticate(read)
                return _Verified(_authenticated(user), min(expires, now + _RECHECK_S), own)
        except (jose.BadToken, Refused) as fault:
            problem = str(fault)
        if self._webhook is not None:
            known = await self._webhook.authenticate(token)
            if known is not None:
                ttl_s = self._options.authentication_token_webhook_cache_ttl_s
                return _Verified(_authenticated(known), now + ttl_s, own)
        raise InvalidToken(problem)

    async def close(self) -> None:
        if self._webhook is not None:
            await self._webhook.close()

    # ---------------------------------------------------------------- reviews

    async def review(self, token: str, audiences: tuple[str, ...]) -> Review:
        """Whose token it is, for a TokenReview which asks for one of `audiences` (none: the server's own)."""
        wanted = audiences or self._options.audiences
        user = self._tokens.get(f"Bearer {token}")
        if user is not None:  # static tokens are good for the server's own audiences
            shared = tuple(audience for audience in wanted if audience in self._options.audiences)
            return Review(user, shared) if shared else Review(None, (), _INVALID)
        try:
            user, _, shared = self._check_token(token, wanted, self._clock.time())
        except InvalidToken as problem:
            if not self._issuers and self._webhook is None:
                return Review(None, (), f"[{_INVALID}, {problem}]" if self._is_own(token) else _INVALID)
            try:
                user, _, good_for = await self._from_elsewhere(token)
            except InvalidToken as other:
                return Review(None, (), f"[{_INVALID}, {other}]")
            shared = tuple(audience for audience in wanted if audience in good_for)
            if not shared:
                return Review(None, (), "token audiences do not match")
        return Review(user, shared)

    def _is_own(self, token: str) -> bool:
        """Whether a token says that this server issued it: only of those it is told what is wrong with them."""
        try:
            return jose.read(token).claims.get("iss") in (*self._options.service_account_issuer, LEGACY_ISSUER)
        except jose.BadToken:
            return False

    def _check_token(self, token: str, audiences: tuple[str, ...], now: float) -> _Verified:
        """Verifies a token that is no static one."""
        if self._options.enable_bootstrap_token_auth and _BOOTSTRAP_TOKEN(token):
            user, expires = self._bootstrap_user(token, now)
            return _Verified(user, expires, tuple(one for one in audiences if one in self._options.audiences))
        if token.count(".") != 2:
            raise InvalidToken("unknown token")
        claims = self.keys.verify(token, now)
        if claims.get("iss") == LEGACY_ISSUER:
            shared = tuple(audience for audience in audiences if audience in self._options.audiences)
            return _Verified(self._legacy_user(token, claims, now), math.inf, shared)
        if claims.get("iss") not in self._options.service_account_issuer:
            raise InvalidToken("wrong issuer")
        named = claims.get("aud")
        given = [named] if isinstance(named, str) else list(named or ())
        shared = tuple(audience for audience in audiences if audience in given)
        if not shared:
            told = f"{_go_list(given)} is invalid for the target audiences {_go_list(audiences)}"
            raise InvalidToken(f"token audiences {told}")
        return _Verified(self._account_user(claims, now), float(claims["exp"]), shared)

    # ---------------------------------------------------------------- ServiceAccounts

    def _account_user(self, claims: Claims, now: float) -> UserInfo:
        """The user of verified claims, if the account and what the token is bound to are still there."""
        private = claims.get("kubernetes.io") or {}
        namespace = private.get("namespace") or ""
        account = private.get("serviceaccount") or {}
        name, uid = account.get("name") or "", account.get("uid") or ""
        if not namespace or not name or claims.get("sub") != f"{ACCOUNT_PREFIX}{namespace}:{name}":
            raise InvalidToken("wrong subject")
        extra: dict[str, list[str]] = {}
        if claims.get("jti"):
            extra[CREDENTIAL_ID] = [f"JTI={claims['jti']}"]
        if self._options.service_account_lookup:
            self._check_bound("serviceaccounts", namespace, account, now)
            for claim, resource in (("pod", "pods"), ("secret", "secrets")):
                if private.get(claim):
                    self._check_bound(resource, namespace, private[claim], now)
            if private.get("node") and not private.get("pod"):
                self._check_bound("nodes", "", private["node"], now)
        for claim, name_key, uid_key in (("pod", POD_NAME, POD_UID), ("node", NODE_NAME, NODE_UID)):
            bound = private.get(claim)
            if bound:
                extra[name_key] = [bound["name"]]
                if bound.get("uid"):
                    extra[uid_key] = [bound["uid"]]
        return account_user(namespace, name, uid, extra)

    def _legacy_user(self, token: str, claims: Claims, now: float) -> UserInfo:
        """The user of a token in a Secret, which is good as long as the Secret holds it."""
        private = "kubernetes.io/serviceaccount/"
        namespace, name = claims.get(f"{private}namespace") or "", claims.get(f"{private}service-account.name") or ""
        uid = claims.get(f"{private}service-account.uid") or ""
        if not namespace or not name or claims.get("sub") != f"{ACCOUNT_PREFIX}{namespace}:{name}":
            raise InvalidToken("wrong subject")
        if self._options.service_account_lookup:
            secret = self.stored("secrets", namespace, claims.get(f"{private}secret.name") or "")
            held = base64.b64decode(((secret or {}).get("data") or {}).get("token") or "")
            if secret is None or "deletionTimestamp" in secret["metadata"] or held != token.encode():
                raise InvalidToken("the Secret of the token is gone or holds another")
            if (secret["metadata"].get("labels") or {}).get("kubernetes.io/legacy-token-invalid-since"):
                raise InvalidToken("the token has been marked as invalid")
            self._check_bound("serviceaccounts", namespace, {"name": name, "uid": uid}, now)
        return account_user(namespace, name, uid, {})

    def _check_bound(self, resource: str, namespace: str, bound: Mapping[str, Any], now: float) -> None:
        name = bound.get("name") or ""
        found = self.stored(resource, namespace, name)
        account = resource == "serviceaccounts"
        if found is None:
            raise InvalidToken(f"{resource} {quote(name)} not found" if account else _INVALIDATED)
        deleted = found["metadata"].get("deletionTimestamp")
        if deleted and now > parse_rfc3339(deleted) + _TERMINATED_GRACE_S:
            raise InvalidToken(f"service account {namespace}/{name} has been deleted" if account else _INVALIDATED)
        uid = found["metadata"]["uid"]
        if uid != bound.get("uid"):
            kind = resource.removesuffix("s")
            whose = f"service account {kind} ref claim" if not account else "claim"
            told = f"{'service account' if account else kind} UID ({uid}) does not match {whose}"
            raise InvalidToken(f"{told} ({bound.get('uid')})")

    def stored(self, resource: str, namespace: str, name: str) -> dict[str, Any] | None:
        """An object of the core group, as it is stored now."""
        rtype = self._resources[resource]
        item = self._store.get(rtype.key(namespace, name)) if rtype is not None and name else None
        return None if item is None else msgpack.unpackb(item.value)

    # ---------------------------------------------------------------- bootstrap tokens

    def _bootstrap_user(self, token: str, now: float) -> tuple[UserInfo, float]:
        identifier, _, secret = token.partition(".")
        found = self.stored("secrets", "kube-system", f"bootstrap-token-{identifier}")
        if found is None or found.get("type") != "bootstrap.kubernetes.io/token":
            raise InvalidToken("unknown bootstrap token")
        encoded = found.get("data") or {}
        data = {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in encoded.items()}
        right = hmac.compare_digest(data.get("token-secret", "").encode(), secret.encode())
        if not right or data.get("token-id") != identifier or data.get("usage-bootstrap-authentication") != "true":
            raise InvalidToken("wrong bootstrap token")
        expires = now + _RECHECK_S
        if data.get("expiration"):
            try:
                expires = parse_rfc3339(data["expiration"])
            except ValueError:
                raise InvalidToken("malformed expiration") from None
            if expires <= now:
                raise InvalidToken("token has expired")
        groups = ["system:bootstrappers"]
        for group in filter(None, data.get("auth-extra-groups", "").split(",")):
            if not _BOOTSTRAP_GROUP(group):
                raise InvalidToken("malformed group")
            groups.append(group)
        return UserInfo(f"system:bootstrap:{identifier}", (*groups, AUTHENTICATED)), expires

    # ---------------------------------------------------------------- certificates

    def _read_certificate(self, transport: asyncio.Transport | None) -> UserInfo | None:
        """Whom the peer's certificate names; asked once for a connection."""
        ssl_object = transport.get_extra_info("ssl_object") if transport is not None else None
        if ssl_object is None:
            return None
        der = ssl_object.getpeercert(True)
        if not der:
            return None
        names: dict[str, list[str]] = {}
        for relative in ssl_object.getpeercert()["subject"]:
            for key, value in relative:
                names.setdefault(key, []).append(value)
        common = (names.get("commonName") or [""])[0]
        if self._proxies is not None and self._proxies.issued(der):
            return ProxyIdentity(common) if self._proxies.trusts(common) else None
        if not common:
            return None
        digest = hashlib.sha256(der).hexdigest()
        groups = (*names.get("organizationName", ()), AUTHENTICATED)
        uid = (names.get("1.3.6.1.4.1.57683.2") or [""])[0]
        return UserInfo(common, groups, uid, {CREDENTIAL_ID: [f"X509SHA256={digest}"]})


def _identities(options: ServerOptions) -> Identities:
    """Configurations may hold expressions, whose machinery takes its time to import: most servers have none."""
    if not (options.authentication_config or options.oidc_issuer_url or options.oidc_client_id):
        return Identities((), Anonymous(options.anonymous_auth))
    from fastkube.server.authn_config import identities

    return identities(options)


def account_user(namespace: str, name: str, uid: str = "", extra: dict[str, list[str]] | None = None) -> UserInfo:
    """The user that a ServiceAccount is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return UserInfo(f"{ACCOUNT_PREFIX}{namespace}:{name}", groups, uid, extra or {})


def split_account(username: str) -> tuple[str, str] | None:
    """(namespace, name) if the user name is one that a ServiceAccount can have."""
    if not username.startswith(ACCOUNT_PREFIX):
        return None
    namespace, colon, name = username[len(ACCOUNT_PREFIX) :].partition(":")
    if not colon or dns1123_label(namespace) or dns1123_subdomain(name):
        return None
    return namespace, name


def read_token_file(path: Path) -> dict[str, UserInfo]:
    """Users by token of upstream's CSV file; raises ValueError, naming the line, for what it does not allow."""
    users: dict[str, UserInfo] = {}
    with path.open(newline="") as file:
        for number, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
            fields = [field.strip() for field in row]
            if not any(fields):
                continue
            if len(fields) < 3:
                raise ValueError(f"{path}:{number}: a line needs at least token, user name and user uid")
            token, name, uid, *rest = fields
            if not token:
                raise ValueError(f"{path}:{number}: the token is empty")
            groups = tuple(group.strip() for group in rest[0].split(",")) if rest else ()
            users[token] = UserInfo(name, groups, uid)
    return users


def _authenticated(user: UserInfo) -> UserInfo:
    if AUTHENTICATED in user.groups:
        return user
    return UserInfo(user.name, (*user.groups, AUTHENTICATED), user.uid, user.extra)


def _go_list(texts: Iterable[str]) -> str:
    return f"[{' '.join(map(quote, texts))}]"


def _websocket_token(headers: Any) -> str | None:
    """Browsers cannot set headers on a WebSocket: they send the token as a subprotocol."""
    offered = headers.get("Sec-WebSocket-Protocol")
    if not offered or _WEBSOCKET_TOKEN not in offered:
        return None
    for protocol in offered.split(","):
        encoded = protocol.strip()
        if encoded.startswith(_WEBSOCKET_TOKEN):
            text = encoded[len(_WEBSOCKET_TOKEN) :]
            try:
                return "Bearer " + base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            except ValueError:
                return "Bearer -"
    return None
