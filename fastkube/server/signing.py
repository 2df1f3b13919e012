"""Makes the tokens that the registry's TokenRequest asks for (`registry.tokens.TokenSigner`)."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastkube.registry.tokens import Claims
    from fastkube.server.authn import Authenticator
    from fastkube.server.options import ServerOptions


class Signer:
    def __init__(self, authenticator: Authenticator, options: ServerOptions) -> None:
        self._authenticator = authenticator
        self._issuer = options.service_account_issuer[0]
        self.audiences = list(options.audiences)
        self.extends = options.service_account_extend_token_expiration
        self.expiration_max_s = int(options.service_account_max_token_expiration_s)

    def sign(self, claims: Claims, now: float) -> str:
        account = claims.account["metadata"]
        namespace, name = account["namespace"], account["name"]
        private: dict[str, Any] = {"namespace": namespace}
        for kind, obj in claims.bound.items():
            metadata = obj["metadata"]
            private[kind.lower()] = {key: metadata[key] for key in ("name", "uid") if key in metadata}
        private["serviceaccount"] = {"name": name, "uid": account["uid"]}
        issued = int(now)
        if claims.warn_after_s:
            private["warnafter"] = issued + claims.warn_after_s
        return self._authenticator.keys.sign(
            {
                "aud": claims.audiences,
                "exp": issued + claims.expiration_s,
                "iat": issued,
                "iss": self._issuer,
                "jti": str(uuid.uuid4()),
                "kubernetes.io": private,
                "nbf": issued,
                "sub": f"system:serviceaccount:{namespace}:{name}",
            }
        )
