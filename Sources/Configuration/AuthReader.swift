// The section `auth`: which keys there are, and what each may hold.

import Primitives

extension Configuration.Auth {
    init(_ map: MappingReader) {
        realm = map.read("realm", default: "sluice") { text throws(Invalid) in try quotable(text) }
        standard = map.read("default", default: .none, choice)
        var issuers: [Configuration.TokenIssuer] = []
        map.noteIfAbsent("jwt", as: "[]")
        for (value, path) in map.takeList("jwt", max: Bounds.issuersMax) ?? [] {
            let inner = MappingReader(value, path: path, diagnostics: map.diagnostics)
            guard let issuer = Configuration.TokenIssuer(inner) else { continue }
            if issuers.contains(where: { $0.name == issuer.name }) {
                inner.report("\(quoted(issuer.name)) is another issuer's name already; give it another", at: "name")
            }
            issuers.append(issuer)
        }
        jwt = issuers
        let apiKeys = map.optionalSection("apiKeys").map { Configuration.APIKeys($0) }
        self.apiKeys = apiKeys
        forward = Configuration.ForwardedIdentity(map.section("forward"), keyHeader: apiKeys?.header)
        map.finish()
    }
}

extension Configuration.TokenIssuer {
    /// `nil` after an error, which is reported then.
    fileprivate init?(_ map: MappingReader) {
        name = map.read("name", default: "jwt") { text throws(Invalid) in try readableName(text) }
        let issuer: String? = map.read("issuer", default: nil) { text throws(Invalid) in text }
        self.issuer = issuer
        audience = map.readList("audience", default: [], max: Bounds.audiencesMax) { text throws(Invalid) in text }
        let algorithms: [Configuration.TokenAlgorithm] = map.readList(
            "algorithms", default: [], max: Configuration.TokenAlgorithm.allCases.count
        ) { text throws(Invalid) in
            // RFC 8725 §3.1, §3.2: `none` is a token that anybody can write.
            if text.lowercased() == "none" { throw Invalid("`none` is no signature; remove it") }
            return try choice(text)
        }
        self.algorithms = algorithms
        if !map.has("algorithms") {
            map.reportMissing("algorithms", hint: "list those of its tokens, such as [RS256]")
        } else if map.take("algorithms")?.elements?.isEmpty == true {
            map.report(
                "an empty list: no token could pass; list those of its tokens, such as [RS256]", at: "algorithms")
        }
        let secret: String? = map.read("secret", default: nil) { text throws(Invalid) in text }
        let keyFile: String? = map.read("keyFile", default: nil) { text throws(Invalid) in text }
        let jwksFile: String? = map.read("jwksFile", default: nil) { text throws(Invalid) in text }
        leeway = map.read("leeway", default: Defaults.tokenLeeway) { text throws(Invalid) in
            try duration(text, in: .zero ... .seconds(600))
        }
        requiresExpiry = map.read("requireExpiry", default: true, boolean)
        claims = Configuration.ClaimNames(map.section("claims"))
        map.finish()
        let given = [
            secret.map { Configuration.TokenKey.secret($0) }, keyFile.map { .keyFile($0) },
            jwksFile.map { .jwksFile($0) },
        ].compactMap { $0 }
        guard given.count == 1, let key = given.first else {
            if given.isEmpty {
                map.reportMissing("secret", hint: "give one of secret, keyFile and jwksFile")
            } else {
                map.report("an issuer has one of secret, keyFile and jwksFile; make two issuers of it", at: "keyFile")
            }
            return nil
        }
        self.key = key
        checkKind(map)
    }

    /// RFC 8725 §3.1: a key is for one kind of algorithm, or the text of a public key would do as the secret of HS256.
    private func checkKind(_ map: MappingReader) {
        let families = Set(algorithms.map(\.family))
        switch key {
        case .secret(let secret):
            for algorithm in algorithms where algorithm.family != .hmac {
                map.report(
                    "\(algorithm.rawValue) takes no secret; give its public key by keyFile or jwksFile",
                    at: "algorithms")
            }
            let least = algorithms.map(\.secretBytesMin).max() ?? 0
            if secret.utf8.count < least {
                map.report(
                    "\(secret.utf8.count) bytes; \(algorithms.map(\.rawValue).max() ?? "") needs \(least) at least (RFC 7518)",
                    at: "secret")
            }
        case .keyFile:
            if families.contains(.hmac) {
                map.report("HS algorithms take a secret, not a public key; write secret", at: "algorithms")
            } else if families.count > 1 {
                map.report("one key is for one kind of algorithm; make two issuers of it", at: "algorithms")
            }
        case .jwksFile: break
        }
    }
}

extension Configuration.ClaimNames {
    fileprivate init(_ map: MappingReader) {
        func name(_ text: String) throws(Invalid) -> String {
            guard !text.isEmpty, text.utf8.count <= Bounds.nameBytesMax else {
                throw Invalid("write a claim's name of 1 to \(Bounds.nameBytesMax) bytes")
            }
            return text
        }
        user = map.read("user", default: "sub", name)
        org = map.read("org", default: "org", name)
        tier = map.read("tier", default: "tier", name)
        scope = map.read("scope", default: "scope", name)
        map.finish()
    }
}

extension Configuration.APIKeys {
    fileprivate init(_ map: MappingReader) {
        header = map.read("header", default: map.has("query") ? nil : "x-api-key") { text throws(Invalid) in
            let name = try token(text, max: Bounds.nameBytesMax).lowercased()
            if name != "x-api-key", reservedFields.contains(name) || name.hasPrefix("x-forwarded-") {
                throw Invalid("\(quoted(text)) has a meaning of its own; write another, such as X-API-Key")
            }
            return name
        }
        query = map.read("query", default: nil) { text throws(Invalid) in
            guard !text.isEmpty, text.utf8.count <= Bounds.nameBytesMax, text.utf8.allSatisfy(isNameByte) else {
                throw Invalid("\(quoted(text)) is no parameter's name; use letters, digits, `-`, `_` and `.`")
            }
            return text
        }
        hideCredentials = map.read("hideCredentials", default: true, boolean)
        redis = map.read("redis", default: false, boolean)
        var keys: [Configuration.APIKey] = []
        map.noteIfAbsent("keys", as: "[]")
        for (value, path) in map.takeList("keys", max: Bounds.apiKeysMax) ?? [] {
            let inner = MappingReader(value, path: path, diagnostics: map.diagnostics)
            guard let key = Configuration.APIKey(inner) else { continue }
            if let first = keys.first(where: { $0.hash == key.hash }) {
                inner.report("the same hash as that of \(quoted(first.name)); remove one", at: "hash")
            }
            keys.append(key)
        }
        self.keys = keys
        map.finish()
    }
}

extension Configuration.APIKey {
    fileprivate init?(_ map: MappingReader) {
        let name = map.readRequired("name", hint: "write whose it is") { text throws(Invalid) in try readableName(text)
        }
        let hash = map.readRequired("hash", hint: "`sluice keys add` prints it") { text throws(Invalid) in
            let digits = text.hasPrefix("sha256:") ? String(text.dropFirst(7)) : text
            guard digits.utf8.count == 64,
                digits.utf8.allSatisfy({ ($0 >= 0x30 && $0 <= 0x39) || ($0 >= 0x61 && $0 <= 0x66) })
            else { throw Invalid("not a SHA-256 of 64 digits in lower case; `sluice keys add` prints it") }
            return digits
        }
        user = map.read("user", default: nil) { text throws(Invalid) in try identityText(text) }
        org = map.read("org", default: nil) { text throws(Invalid) in try identityText(text) }
        tier = map.read("tier", default: nil) { text throws(Invalid) in try readableName(text) }
        scopes = map.readList("scopes", default: [], max: Bounds.scopesMax) { text throws(Invalid) in try scope(text) }
        map.finish()
        guard let name, let hash else { return nil }
        self.name = name
        self.hash = hash
    }
}

extension Configuration.APIKey {
    package static let scopesMax = Bounds.scopesMax

    /// Whether the file would take it as the name of a key or of a tier.
    package static func checkName(_ text: String) throws(Invalid) { _ = try readableName(text) }

    /// Whether the file would take it as a user or an organisation.
    package static func checkIdentity(_ text: String) throws(Invalid) { _ = try identityText(text) }

    /// Whether the file would take it as a scope.
    package static func checkScope(_ text: String) throws(Invalid) { _ = try scope(text) }
}

extension Configuration.ForwardedIdentity {
    fileprivate init(_ map: MappingReader, keyHeader: String?) {
        var seen: [String] = []
        func name(_ key: String) -> String? {
            map.read(key, default: nil) { text throws(Invalid) in
                let name = try token(text, max: Bounds.nameBytesMax)
                let lower = name.lowercased()
                if reservedFields.contains(lower) || lower.hasPrefix("x-forwarded-") || lower == keyHeader {
                    throw Invalid("\(quoted(text)) has a meaning of its own; write another, such as X-User")
                }
                if seen.contains(lower) { throw Invalid("\(quoted(text)) is used twice here; write another") }
                seen.append(lower)
                return name
            }
        }
        user = name("user")
        org = name("org")
        tier = name("tier")
        self.key = name("key")
        map.finish()
    }
}

extension Configuration.ServiceAuth {
    init(_ map: MappingReader) {
        let mode: Configuration.AuthMode? = map.read("auth", default: nil) { text throws(Invalid) in try choice(text) }
        scopes = map.readList("scopes", default: [], max: Bounds.scopesMax) { text throws(Invalid) in try scope(text) }
        self.mode = mode ?? .none
        isGiven = mode != nil
    }
}

extension Configuration {
    /// What can be told of identities only when the whole file is known.
    func checkAuth(_ map: MappingReader) {
        checkNames(map)
        // An issuer with an error is none, and has been reported.
        let none = auth.map { $0.jwt.isEmpty && $0.apiKeys == nil && !map.section("auth").has("jwt") } ?? true
        if auth != nil, none {
            map.report("neither jwt nor apiKeys: nobody could prove who they are; add one", at: "auth")
        }
        if auth?.apiKeys?.redis == true, rateLimit?.redisURL == nil {
            map.section("auth").section("apiKeys").report("needs rateLimit.redisURL; write where Redis is", at: "redis")
        }
        for (index, service) in services.enumerated() {
            let wanted = service.auth
            let place = "services[\(index)]"
            if none, wanted.isGiven, wanted.mode != .none {
                map.diagnostics.report(
                    "\(quoted(service.name)) has auth: \(wanted.mode.rawValue), and the section auth says nobody's keys; add it",
                    at: ["\(place).auth"])
            }
            if !wanted.scopes.isEmpty, mode(of: service) == .none {
                map.diagnostics.report(
                    "\(quoted(service.name)) has scopes and does not ask who calls; write auth: required",
                    at: ["\(place).scopes[0]"])
            }
        }
    }

    /// What a service asks, by itself or by default.
    package func mode(of service: Service) -> AuthMode {
        service.auth.isGiven ? service.auth.mode : auth?.standard ?? .none
    }
}

/// Fields that the gateway, HTTP or a browser acts upon: an identity in their place would be lost or misread.
let reservedFields: Set<String> = [
    "host", "connection", "content-length", "content-type", "content-encoding", "transfer-encoding", "te", "trailer",
    "upgrade", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "expect", "forwarded",
    "via", "max-forwards", "x-real-ip", "x-origin-host", "x-client-ip", "true-client-ip", "authorization", "cookie",
    "set-cookie", "x-api-key", "x-request-id", "user-agent", "date", "server", "location", "cache-control",
    "retry-after", "ratelimit", "ratelimit-policy", "accept", "range", "origin", "referer", "traceparent", "tracestate",
]

private func readableName(_ text: String) throws(Invalid) -> String {
    guard !text.isEmpty, text.utf8.count <= Bounds.nameBytesMax, text.utf8.allSatisfy(isNameByte) else {
        throw Invalid(
            "\(quoted(text)) is not a name; use 1 to \(Bounds.nameBytesMax) letters, digits, `-`, `_` and `.`")
    }
    return text
}

/// A user or an organisation: it stands in headers, logs and Redis keys.
private func identityText(_ text: String) throws(Invalid) -> String {
    guard !text.isEmpty, text.utf8.count <= Bounds.identityBytesMax, text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f })
    else {
        throw Invalid(
            "\(quoted(text)) cannot stand in a header; use 1 to \(Bounds.identityBytesMax) visible characters")
    }
    return text
}

/// RFC 6749 §3.3.
private func scope(_ text: String) throws(Invalid) -> String {
    let isScope = text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != 0x22 && $0 != 0x5c }
    guard !text.isEmpty, isScope, text.utf8.count <= Bounds.nameBytesMax else {
        throw Invalid("\(quoted(text)) is no scope; use visible characters without quotes and backslashes")
    }
    return text
}

/// RFC 9110 §5.6.4, without what would need an escape.
private func quotable(_ text: String) throws(Invalid) -> String {
    let isPlain = text.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7f && $0 != 0x22 && $0 != 0x5c }
    guard !text.isEmpty, isPlain, text.utf8.count <= Bounds.nameBytesMax else {
        throw Invalid("\(quoted(text)) cannot stand between quotes; use plain ASCII")
    }
    return text
}
