package import Primitives

extension Configuration {
    /// How callers prove who they are.
    package struct Auth: Hashable, Sendable {
        /// What `WWW-Authenticate` names.
        package let realm: String
        /// Of services that do not say.
        package let standard: AuthMode
        /// Who signs tokens; empty: `Authorization: Bearer` is not looked at.
        package let jwt: [TokenIssuer]
        /// `nil`: nobody has API keys.
        package let apiKeys: APIKeys?
        package let forward: ForwardedIdentity
    }

    package enum AuthMode: String, CaseIterable, Hashable, Sendable {
        /// Without a credential the answer is 401.
        case required
        /// Without a credential the caller is anonymous; one that does not hold is 401 all the same.
        case optional
        /// Credentials are not looked at.
        case none
    }

    /// One who signs tokens, and what its tokens must say.
    package struct TokenIssuer: Hashable, Sendable {
        package let name: String
        /// What `iss` must be; `nil`: not looked at.
        package let issuer: String?
        /// One of these must be in `aud`; empty: not looked at.
        package let audience: [String]
        /// The algorithms of its tokens, all of the kind that its key is for.
        package let algorithms: [TokenAlgorithm]
        package let key: TokenKey
        /// How far its clock and ours may lie apart.
        package let leeway: TimeSpan
        /// Whether a token without `exp` is refused.
        package let requiresExpiry: Bool
        package let claims: ClaimNames
    }

    package enum TokenKey: Hashable, Sendable {
        case secret(String)
        /// A public key, PEM.
        case keyFile(String)
        case jwksFile(String)
    }

    /// RFC 7518 §3.1, RFC 8037 §3.1. `none` is not among them.
    package enum TokenAlgorithm: String, CaseIterable, Hashable, Sendable {
        case hs256 = "HS256"
        case hs384 = "HS384"
        case hs512 = "HS512"
        case rs256 = "RS256"
        case rs384 = "RS384"
        case rs512 = "RS512"
        case ps256 = "PS256"
        case ps384 = "PS384"
        case ps512 = "PS512"
        case es256 = "ES256"
        case es384 = "ES384"
        case es512 = "ES512"
        case eddsa = "EdDSA"

        /// What kind of key it takes: a key is for one kind only.
        package enum Family: Hashable, Sendable { case hmac, rsa, p256, p384, p521, ed25519 }

        package var family: Family {
            switch self {
            case .hs256, .hs384, .hs512: .hmac
            case .rs256, .rs384, .rs512, .ps256, .ps384, .ps512: .rsa
            case .es256: .p256
            case .es384: .p384
            case .es512: .p521
            case .eddsa: .ed25519
            }
        }

        /// RFC 7518 §3.2: a secret is at least as long as the digest; shorter ones are guessed.
        package var secretBytesMin: Int {
            switch self {
            case .hs256: 32
            case .hs384: 48
            case .hs512: 64
            case .rs256, .rs384, .rs512, .ps256, .ps384, .ps512, .es256, .es384, .es512, .eddsa: 0
            }
        }
    }

    /// Where a token says what: a claim's name, or the way to it through objects, `realm_access.tier`.
    package struct ClaimNames: Hashable, Sendable {
        package let user: String
        package let org: String
        package let tier: String
        package let scope: String
    }

    package struct APIKeys: Hashable, Sendable {
        /// In lower case; `nil`: not by header.
        package let header: String?
        /// A parameter of the query; `nil`: not by query.
        package let query: String?
        /// Whether backends get requests without the key.
        package let hideCredentials: Bool
        /// Whether `sluice:keys` in Redis holds keys.
        package let redis: Bool
        package let keys: [APIKey]
    }

    /// A key of the file, by its digest.
    package struct APIKey: Hashable, Sendable {
        package let name: String
        /// SHA-256 of the key, 64 digits in lower case.
        package let hash: String
        package let user: String?
        package let org: String?
        package let tier: String?
        package let scopes: [String]
    }

    /// The headers that tell a backend who asks; the same names from outside are dropped.
    package struct ForwardedIdentity: Hashable, Sendable {
        package let user: String?
        package let org: String?
        package let tier: String?
        package let key: String?
    }

    /// A policy, or the limit that a tier has in its place.
    package struct FlatLimit {
        package let policy: Policy
        /// `nil`: the policy's own.
        package let tier: TierLimit?

        package var limit: Int { tier?.limit ?? policy.limit }
    }

    /// What a service asks of its callers.
    package struct ServiceAuth: Hashable, Sendable {
        package let mode: AuthMode
        /// Whether the service says so itself.
        package let isGiven: Bool
        /// All of them are needed; else 403.
        package let scopes: [String]
    }
}

extension Configuration.RateLimit {
    /// All limits, each policy before those of its tiers.
    package var flattened: [Configuration.FlatLimit] {
        policies.flatMap { policy in
            [Configuration.FlatLimit(policy: policy, tier: nil)]
                + policy.tiers.map { Configuration.FlatLimit(policy: policy, tier: $0) }
        }
    }

    /// The tiers that have limits of their own, each once; their places are their numbers.
    package var tierNames: [String] {
        var names: [String] = []
        for tier in policies.flatMap(\.tiers).map(\.tier) where !names.contains(tier) { names.append(tier) }
        return names
    }
}
