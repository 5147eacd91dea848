import Foundation
import Primitives
import Testing

@testable import Configuration

@Suite("Identities in the file")
struct AuthTests {
    private static let secret = String(repeating: "s", count: 32)

    /// A file with one service.
    private static func file(_ auth: String, service: String = "", rateLimit: String = "") -> String {
        let limit = rateLimit.isEmpty ? "" : "\nrateLimit: {\(rateLimit)}"
        return """
            auth: {\(auth)}
            services: [{name: users, path: /users, instances: [http://localhost:8081]\(service)}]\(limit)
            """
    }

    @Test("the example file loads, and says what it says")
    func example() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("configs/auth.yaml").path
        let configuration = try Configuration.load(path: path, environment: ["JWT_SECRET": Self.secret])
        let auth = try #require(configuration.auth)
        #expect(auth.realm == "sluice" && auth.standard == .required)
        #expect(auth.jwt.map(\.name) == ["internal"])
        #expect(auth.jwt[0].key == .secret(Self.secret))
        #expect(auth.jwt[0].algorithms == [.hs256])
        #expect(auth.jwt[0].leeway == .seconds(30) && auth.jwt[0].requiresExpiry)
        #expect(
            auth.jwt[0].claims == Configuration.ClaimNames(user: "sub", org: "tenant", tier: "tier", scope: "scope"))
        #expect(auth.apiKeys?.header == "x-api-key" && auth.apiKeys?.query == "api_key" && auth.apiKeys?.redis == true)
        #expect(auth.apiKeys?.keys.map(\.name) == ["nightly-report"])
        #expect(
            auth.forward
                == Configuration.ForwardedIdentity(user: "X-User", org: "X-Org", tier: "X-Tier", key: "X-Key-ID"))
        #expect(configuration.services.map { configuration.mode(of: $0) } == [.required, .optional, .none])
        #expect(configuration.services[0].auth.scopes == ["orders"])
        let limit = try #require(configuration.rateLimit)
        #expect(limit.policies.map(\.key) == [.user, .apiKey, .org])
        #expect(limit.flattened.map(\.limit) == [100, 1000, 10000, 50, 100000])
        #expect(limit.tierNames == ["premium", "partner"])
        // Without the secret there is no node, and its text is in no error.
        #expect(throws: ConfigurationErrors.self) { try Configuration.load(path: path, environment: [:]) }
    }

    @Test("what an issuer leaves out has the documented default, and files are named only")
    func defaults() throws {
        let auth = try #require(
            try parse(Self.file("jwt: [{algorithms: [RS256, PS512], keyFile: k.pem}], apiKeys: {}")).auth)
        #expect(auth.standard == .none)
        #expect(auth.jwt[0].name == "jwt" && auth.jwt[0].issuer == nil && auth.jwt[0].audience == [])
        #expect(auth.jwt[0].key == .keyFile("k.pem"))
        #expect(
            auth.apiKeys
                == Configuration.APIKeys(header: "x-api-key", query: nil, hideCredentials: true, redis: false, keys: [])
        )
        #expect(auth.forward == Configuration.ForwardedIdentity(user: nil, org: nil, tier: nil, key: nil))
        let query = try #require(try parse(Self.file("apiKeys: {query: key}")).auth?.apiKeys)
        #expect(query.header == nil && query.query == "key")
        #expect(try parse(ConfigurationTests.file()).auth == nil)
    }

    @Test(
        "what cannot be right is an error that says what to write",
        arguments: [
            Row(
                file("jwt: [{algorithms: [none], secret: \(secret)}]"),
                "f:1:28: auth.jwt[0].algorithms[0]: `none` is no signature; remove it"
            ),
            Row(
                file("jwt: [{algorithms: [RS256], secret: \(secret)}]"),
                "f:1:27: auth.jwt[0].algorithms: RS256 takes no secret; give its public key by keyFile or jwksFile"
            ),
            Row(
                file("jwt: [{algorithms: [HS256], keyFile: a}]"),
                "f:1:27: auth.jwt[0].algorithms: HS algorithms take a secret, not a public key; write secret"
            ),
            Row(
                file("jwt: [{algorithms: [RS256, ES256], keyFile: a}]"),
                "f:1:27: auth.jwt[0].algorithms: one key is for one kind of algorithm; make two issuers of it"
            ),
            Row(
                file("jwt: [{algorithms: [HS512], secret: \(secret)}]"),
                "f:1:44: auth.jwt[0].secret: 32 bytes; HS512 needs 64 at least (RFC 7518)"
            ),
            Row(
                file("jwt: [{algorithms: [], secret: \(secret)}]"),
                "f:1:27: auth.jwt[0].algorithms: an empty list: no token could pass; list those of its tokens, such as [RS256]"
            ),
            Row(
                file("jwt: [{algorithms: [HS256]}]"),
                "f:1:14: auth.jwt[0].secret: missing; give one of secret, keyFile and jwksFile"
            ),
            Row(
                file("forward: {user: Host}, apiKeys: {}"),
                "f:1:24: auth.forward.user: `Host` has a meaning of its own; write another, such as X-User"
            ),
            Row(
                file("forward: {user: X-A, org: x-a}, apiKeys: {}"),
                "f:1:34: auth.forward.org: `x-a` is used twice here; write another"
            ),
            Row(
                file("apiKeys: {header: Cookie}"),
                "f:1:26: auth.apiKeys.header: `Cookie` has a meaning of its own; write another, such as X-API-Key"
            ),
            Row(
                file("apiKeys: {keys: [{name: a, hash: \"123\"}]}"),
                "f:1:41: auth.apiKeys.keys[0].hash: not a SHA-256 of 64 digits in lower case; `sluice keys add` prints it"
            ),
            Row(
                file("apiKeys: {redis: true}"),
                "f:1:25: auth.apiKeys.redis: needs rateLimit.redisURL; write where Redis is"
            ),
            Row(
                file("realm: x"),
                "f:1:7: auth: neither jwt nor apiKeys: nobody could prove who they are; add one"
            ),
            Row(
                file("apiKeys: {}", service: ", scopes: [a]"),
                "f:2:85: services[0].scopes[0]: `users` has scopes and does not ask who calls; write auth: required"
            ),
            Row(
                file(
                    "apiKeys: {}",
                    rateLimit:
                        "policies: [{name: a, limit: 9, window: 1s, key: user, tiers: {gold: 3}, cost: {methods: {PUT: 5}}}]"
                ),
                "f:3:81: rateLimit.policies[0].tiers.gold: a request of 5 could never pass a limit of 3; raise it, or lower the cost"
            ),
            Row(
                file(
                    "apiKeys: {}",
                    rateLimit: "policies: [{name: a, limit: 1, window: 1s, key: user, tiers: {gold: 0}}]"),
                "f:3:81: rateLimit.policies[0].tiers.gold: `0` is out of range; write a number in 1...1000000000"
            ),
        ])
    func errors(row: Row) {
        #expect(ConfigurationTests.errors(row.text).joined(separator: "\n") == row.expected)
    }

    @Test(
        "a limit by a header that tells backends who calls is refused: it would count what a client made up",
        arguments: [
            ("header:X-Org", "`x-org`", "auth.forward.org", "write key: org"),
            ("header:x-org", "`x-org`", "auth.forward.org", "write key: org"),
            ("header:X_ORG", "`x_org`", "auth.forward.org", "write key: org"),
            ("header:X.Org", "`x.org`", "auth.forward.org", "write key: org"),
            ("header:X-User", "`x-user`", "auth.forward.user", "write key: user"),
            ("header:x-tier", "`x-tier`", "auth.forward.tier", "write tiers, with key: user"),
            ("header:X-Key-ID", "`x-key-id`", "auth.forward.key", "write key: apiKey"),
        ])
    func forwardedNames(key: String, name: String, forwarded: String, remedy: String) {
        let text = Self.file(
            "apiKeys: {}, forward: {user: X-User, org: X-Org, tier: X-Tier, key: X-Key-ID}",
            rateLimit: "policies: [{name: a, limit: 1, window: 1s, key: \"\(key)\"}]")
        #expect(
            ConfigurationTests.errors(text) == [
                "f:3:23: rateLimit.policies: policy `a` counts what clients write into \(name), which \(forwarded) "
                    + "says anew to backends; to count who is verified, \(remedy)"
            ])
    }

    @Test("a limit by another header is taken", arguments: ["header:X-Organ", "header:X-Tenant", "header:XOrg", "org"])
    func otherNames(key: String) throws {
        _ = try parse(
            Self.file(
                "apiKeys: {}, forward: {user: X-User, org: X-Org}",
                rateLimit: "policies: [{name: a, limit: 1, window: 1s, key: \"\(key)\"}]"))
    }

    @Test("auth at a service needs the section")
    func serviceWithoutSection() {
        let text = """
            services: [{name: users, path: /users, instances: [http://localhost:8081], auth: required}]
            rateLimit: {policies: [{name: a, limit: 1, window: 1s, tiers: {gold: 5}}]}
            """
        let found = ConfigurationTests.errors(text)
        #expect(found.count == 2)
        #expect(found.contains { $0.contains("1:82: services[0].auth: `users` has auth: required") })
        let tiers = "2:70: rateLimit.policies[0].tiers.gold: policy `a` has tiers, and nobody is asked who they are"
        #expect(found.contains { $0.contains(tiers) })
    }
}
