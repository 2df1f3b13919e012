"""Bearer tokens of other issuers: OpenID Connect and the JWT authenticators of an AuthenticationConfiguration.

Source: "Authenticating" of the Kubernetes documentation. The way of a token:

    its `iss` (unverified) names the authenticator → keys of the issuer (discovery, JWKS; kept) → signature
      → aud, exp, nbf → claim validation rules → claim mappings → user validation rules

Keys are fetched when a token first asks for them, and again when a token names a key that is not among them, at most
every `_REFETCH_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from fastkube.api.field import quote
from fastkube.registry.strategy import UserInfo
from fastkube.server import jose
from fastkube.server.outbound import Peer, PeerError

if TYPE_CHECKING:
    from fastkube.clock import Clock

Claims = dict[str, Any]

_TIMEOUT_S = 10.0
_REFETCH_S = 10.0
_SOURCES_MAX = 64
_NOT_BEFORE_LEEWAY_S = 300.0


class Refused(Exception):
    """The token is not good for this server; the text says why."""


@dataclass(frozen=True)
class ClaimMapping:
    """Text or texts from the claims: those of one claim, or what an expression makes of them."""

    claim: str = ""
    prefix: str = ""
    expression: Callable[[Claims], Any] | None = None

    def texts(self, claims: Claims) -> list[str]:
        """Raises Refused for a value that is neither text nor a list of texts; an absent claim gives nothing."""
        value = self.expression(claims) if self.expression is not None else claims.get(self.claim)
        if value is None:
            return []
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str) for one in values):
            raise Refused(f"claim {self.claim!r} is neither a string nor a list of strings")
        return [self.prefix + one for one in values]

    def text(self, claims: Claims) -> str:
        """Raises Refused unless it is exactly one text."""
        found = self.texts(claims)
        if len(found) != 1:
            raise Refused(f"claim {self.claim!r} is not present" if not found else f"claim {self.claim!r} is a list")
        return found[0]


@dataclass(frozen=True)
class IssuerConfig:
    """One JWT authenticator. Rules give the text of what is wrong, "" for nothing."""

    url: str
    audiences: tuple[str, ...]
    username: ClaimMapping
    groups: ClaimMapping | None = None
    uid: ClaimMapping | None = None
    extra: Mapping[str, ClaimMapping] = field(default_factory=dict)
    discovery_url: str = ""
    ca: bytes = b""
    algorithms: tuple[str, ...] = jose.ALGORITHMS
    claim_rules: tuple[Callable[[Claims], str], ...] = ()
    user_rules: tuple[Callable[[UserInfo], str], ...] = ()


class Anonymous(NamedTuple):
    """Whether requests without credentials are let in; `paths` None is everywhere."""

    enabled: bool
    paths: frozenset[str] | None = None


class Identities(NamedTuple):
    """Who is let in besides those that the server itself knows."""

    issuers: tuple[IssuerConfig, ...]
    anonymous: Anonymous


class Issuer:
    """Verifies the tokens of one issuer."""

    def __init__(self, config: IssuerConfig, clock: Clock) -> None:
        self.config = config
        self._clock = clock
        self._keys: list[dict[str, Any]] = []
        self._fetched = 0.0
        self._lock = asyncio.Lock()
        self._sources: dict[str, Issuer] = {}
        """The issuers of claims that other places hold."""

    async def authenticate(self, token: jose.Token) -> tuple[UserInfo, float]:
        """The user, and when the token expires (wall time). Raises Refused."""
        expires = await self.check(token)
        config, claims = self.config, token.claims
        if config.groups is not None and config.groups.claim:
            claims = await self._with_distributed(claims, config.groups.claim)
        for rule in config.claim_rules:
            problem = rule(claims)
            if problem:
                raise Refused(f"oidc: {problem}")
        return self._user(claims), expires

    async def check(self, token: jose.Token) -> float:
        """When the token expires (wall time), if the issuer has signed it for one of the audiences. Raises Refused."""
        await self._verify(token)
        expires = self._check_times(token.claims)
        audiences, wanted = token.claims.get("aud"), self.config.audiences
        given = {audiences} if isinstance(audiences, str) else set(audiences or ())
        if not given & set(wanted):
            raise Refused(f"oidc: expected audience in {list(wanted)} got {sorted(given)}")
        return expires

    # ---------------------------------------------------------------- distributed claims

    async def _with_distributed(self, claims: Claims, name: str) -> Claims:
        """The claims with the one that another place holds (OpenID Connect Core 1.0, 5.6.2). Raises Refused."""
        names = claims.get("_claim_names")
        if name in claims or names is None:
            return claims
        try:
            source = _source(claims, names, name)
            if not source.get("endpoint"):  # not there, or held by the token itself
                return claims
            return {**claims, name: await self._fetch_claim(source, name)}
        except Refused as problem:
            raise Refused(f"oidc: could not expand distributed claims: {problem}") from None

    async def _fetch_claim(self, source: Claims, name: str) -> Any:
        """The value of a claim in the token that its source gives."""
        url = str(source["endpoint"])
        peer = Peer.of_url(url, self._clock, ca=self.config.ca, token=str(source.get("access_token") or ""))
        try:
            token = jose.read((await peer.fetch(_TIMEOUT_S)).decode("utf-8", "replace"))
        except (PeerError, jose.BadToken) as problem:
            raise Refused(f"while getting distributed claim {quote(name)}: {problem}") from None
        finally:
            await peer.close()
        issuer = str(token.claims.get("iss") or "")
        if issuer not in self._sources:
            if len(self._sources) >= _SOURCES_MAX:
                self._sources.clear()
            config = IssuerConfig(issuer, self.config.audiences, ClaimMapping(), ca=self.config.ca)
            self._sources[issuer] = Issuer(config, self._clock)
        try:
            await self._sources[issuer].check(token)
        except Refused as problem:
            raise Refused(f"verify distributed claim token: {problem}") from None
        if name not in token.claims:
            told = f"jwt returned by distributed claim endpoint {quote(url)} did not contain claim"
            raise Refused(f"{told}: {name}")
        return token.claims[name]

    def _user(self, claims: Claims) -> UserInfo:
        config = self.config
        if config.username.claim == "email" and claims.get("email_verified", True) is not True:
            raise Refused("oidc: email not verified")
        name = config.username.text(claims)
        if not name:
            raise Refused("oidc: the user name is empty")
        groups = config.groups.texts(claims) if config.groups is not None else []
        uid = config.uid.text(claims) if config.uid is not None else ""
        extra = {key: values for key, mapping in config.extra.items() if (values := mapping.texts(claims))}
        user = UserInfo(name, tuple(groups), uid, extra)
        for rule in config.user_rules:
            problem = rule(user)
            if problem:
                raise Refused(f"oidc: {problem}")
        return user

    def _check_times(self, claims: Claims) -> float:
        now = self._clock.time()
        expires, not_before = claims.get("exp"), claims.get("nbf", 0)
        if isinstance(expires, bool) or not isinstance(expires, int | float) or now >= expires:
            raise Refused("oidc: token is expired")
        if (
            isinstance(not_before, bool)
            or not isinstance(not_before, int | float)
            or now + _NOT_BEFORE_LEEWAY_S < not_before
        ):
            raise Refused("oidc: token is not valid yet")
        return float(expires)

    # ---------------------------------------------------------------- keys

    async def _verify(self, token: jose.Token) -> None:
        if not jose.candidates(token, self._keys):
            await self._refetch(token)
        try:
            jose.verify(token, self._keys, self.config.algorithms)
        except jose.BadToken as problem:
            raise Refused(f"oidc: {problem}") from None

    async def _refetch(self, token: jose.Token) -> None:
        async with self._lock:
            now = self._clock.monotonic()
            waited = self._fetched and now - self._fetched < _REFETCH_S
            if waited or jose.candidates(token, self._keys):
                return
            self._fetched = now
            try:
                self._keys = await self._fetch()
            except (PeerError, ValueError) as problem:
                raise Refused(f"oidc: authenticator not initialized: {problem}") from None

    async def _fetch(self) -> list[dict[str, Any]]:
        config = self.config
        url = config.discovery_url or config.url.rstrip("/") + "/.well-known/openid-configuration"
        document = await self._get(url)
        if not isinstance(document, dict) or document.get("issuer") != config.url:
            raise PeerError(f"{url}: the document is not that of the issuer {config.url}")
        keys = (await self._get(str(document.get("jwks_uri") or ""))).get("keys")
        if not isinstance(keys, list):
            raise PeerError(f"{config.url}: the key set has no keys")
        return [key for key in keys if isinstance(key, dict)]

    async def _get(self, url: str) -> Any:
        peer = Peer.of_url(url, self._clock, ca=self.config.ca)
        try:
            return await peer.get(_TIMEOUT_S)
        finally:
            await peer.close()


def _source(claims: Claims, names: Any, name: str) -> Claims:
    """Where the token says that a claim is held; {} if it does not say. Raises Refused for what is no such thing."""
    if not isinstance(names, dict) or not all(isinstance(one, str) for one in names.values()):
        raise Refused("oidc: error parsing distributed claim names")
    if "_claim_sources" not in claims:
        raise Refused("oidc: no claim sources")
    sources = claims["_claim_sources"]
    if not isinstance(sources, dict):
        raise Refused("oidc: could not parse claim sources")
    if name not in names:
        return {}
    source = sources.get(names[name])
    if not isinstance(source, dict):
        raise Refused(f"id token _claim_names contained a source {names[name]} missing in _claims_sources")
    return source
