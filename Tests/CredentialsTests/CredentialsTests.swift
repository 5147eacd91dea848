import Configuration
import Identity
import Primitives
import TestSupport
import Testing
import TokenSupport

@testable import Credentials

/// An issuer as a file says it; `more` are keys of it.
private func issuers(_ lines: [String]) throws -> [Configuration.TokenIssuer] {
    let text = """
        services: [{name: a, path: /, instances: ["http://localhost:1"]}]
        auth:
          jwt:
        \(lines.enumerated().map { "    - {name: i\($0), \($1)}" }.joined(separator: "\n"))
        """
    return try Configuration.parse(text, file: "f").auth?.jwt ?? []
}

/// A verifier whose files are in memory.
private func verifier(_ lines: [String], files: [String: String] = [:]) async throws -> TokenVerifier {
    try await onThread {
        try TokenVerifier(try issuers(lines)) { path in
            guard let text = files[path] else { throw KeyError(description: "no \(path)") }
            return Array(text.utf8)
        }
    }
}

private let now: Int64 = 1_800_000_000
private let good = "{\"sub\":\"42\",\"org\":\"acme\",\"tier\":\"premium\",\"exp\":\(now + 60)}"

extension TokenVerifier {
    fileprivate func verify(_ token: String, at time: Int64 = now) -> Verdict { verify(Array(token.utf8), now: time) }

    fileprivate func fault(_ token: String, at time: Int64 = now) -> CredentialFault? {
        if case .refused(let fault, _) = verify(token, at: time) { return fault }
        return nil
    }
}

@Suite("Signatures of tokens")
struct SignatureTests {
    private static let algorithms = Configuration.TokenAlgorithm.allCases.map(\.rawValue)

    @Test("every algorithm verifies what was signed with its key, and nothing else", arguments: algorithms)
    func everyAlgorithm(name: String) async throws {
        let signer = try await TokenSigner.make(name)
        let isSecret = name.hasPrefix("HS")
        let key = isSecret ? "secret: \"\(TokenSigner.secret)\"" : "keyFile: key.pem"
        let verifier = try await verifier(["algorithms: [\(name)], \(key)"], files: ["key.pem": signer.publicKey])
        let token = try signer.sign(good)
        #expect(
            verifier.verify(token)
                == .verified(CallerClaims(user: "42", org: "acme", tier: "premium"), until: now + 60 + 30))
        // One bit of any part.
        for part in 0..<3 {
            var parts = token.split(separator: ".").map(String.init)
            let claims = "{\"sub\":\"43\",\"exp\":\(now + 60)}"
            switch part {
            case 0: parts[0] = TokenSigner.encoded(Array("{\"alg\":\"\(name)\"}".utf8))
            case 1: parts[1] = TokenSigner.encoded(Array(claims.utf8))
            default: parts[2] = (parts[2].hasPrefix("A") ? "B" : "A") + parts[2].dropFirst()
            }
            #expect(verifier.fault(parts.joined(separator: ".")) == .signature)
        }
        let other = try await TokenSigner.make(name, secret: String(TokenSigner.secret.reversed()))
        // The shared RSA key is the same one.
        if !name.hasPrefix("R"), !name.hasPrefix("P") { #expect(verifier.fault(try other.sign(good)) == .signature) }
    }

    @Test("no token is believed whose signature is none, or whose algorithm is not the key's")
    func confusion() async throws {
        let rsa = try await TokenSigner.make("RS256")
        let verifier = try await verifier(["algorithms: [RS256], keyFile: key.pem"], files: ["key.pem": rsa.publicKey])
        let payload = TokenSigner.encoded(Array(good.utf8))
        for name in ["none", "None", "NONE", "nOnE", "", "HS256", "ES256", "RS384", "PS256", "rs256", "RS256 "] {
            let head = TokenSigner.encoded(Array("{\"alg\":\"\(name)\"}".utf8))
            for signature in ["", "AAAA"] {
                #expect(verifier.fault("\(head).\(payload).\(signature)") == .algorithm, "\(name)")
            }
        }
        // RFC 8725 §2.1: the text of the public key as the secret of HS256.
        let forged = try await TokenSigner.make("HS256", secret: rsa.publicKey)
        #expect(verifier.fault(try forged.sign(good)) == .algorithm)
        // Even where both kinds are configured, each key is for its own kind.
        let both = try await self.both(rsa.publicKey)
        #expect(both.fault(try forged.sign(good)) == .signature)
        #expect(both.fault(try forged.sign(good, header: "{\"alg\":\"RS256\"}")) == .signature)
        #expect(both.fault(try rsa.sign(good)) == nil)
        // Keys that come with the token are nobody's.
        let own = try await TokenSigner.make("ES256")
        let header =
            "{\"alg\":\"RS256\",\"jwk\":{\"kty\":\"EC\"},\"jku\":\"http://localhost/\",\"x5u\":\"http://localhost/\"}"
        #expect(verifier.fault(try own.sign(good, header: header)) == .signature)
    }

    private func both(_ pem: String) async throws -> TokenVerifier {
        try await verifier(
            ["algorithms: [RS256], keyFile: key.pem", "algorithms: [HS256], secret: \"\(TokenSigner.secret)\""],
            files: ["key.pem": pem])
    }

    @Test("a key of the wrong kind, a short one and a broken file are errors when they are loaded")
    func loading() async throws {
        let es = try await TokenSigner.make("ES256")
        await #expect(throws: KeyError.self) {
            try await verifier(["algorithms: [RS256], keyFile: k"], files: ["k": es.publicKey])
        }
        await #expect(throws: KeyError.self) {
            try await verifier(["algorithms: [ES256], keyFile: k"], files: ["k": "nothing"])
        }
        await #expect(throws: KeyError.self) { try await verifier(["algorithms: [ES256], keyFile: k"]) }
        await #expect(throws: KeyError.self) {
            try await verifier(["algorithms: [ES256], jwksFile: k"], files: ["k": "{"])
        }
        for none in ["{}", "{\"keys\":null}", "{\"keys\":[{\"kty\":\"made-up\"}]}"] {
            await #expect(throws: KeyError.self) {
                try await verifier(["algorithms: [ES256], jwksFile: k"], files: ["k": none])
            }
        }
        let short = TokenSigner.encoded(Array("short".utf8))
        await #expect(throws: KeyError.self) {
            try await verifier(
                ["algorithms: [HS256], jwksFile: k"],
                files: ["k": "{\"keys\":[{\"kty\":\"oct\",\"k\":\"\(short)\"}]}"])
        }
    }

    @Test("an empty set of keys is one: all were withdrawn, and each token is refused")
    func withdrawn() async throws {
        let signer = try await TokenSigner.make("HS256")
        let verifier = try await verifier(["algorithms: [HS256], jwksFile: k"], files: ["k": "{\"keys\":[]}"])
        #expect(verifier.fault(try signer.sign(good)) == .unknownSigningKey)
        #expect(verifier.withdrawn == ["k"])
    }

    private static let claims = good

    private static func modulus(bytes count: Int) -> String {
        TokenSigner.encoded([UInt8](repeating: 0xc5, count: count))
    }

    @Test(
        "a key of a set that cannot be used is left out, with the reason, and the others count",
        arguments: [
            (
                "{\"kty\":\"RSA\",\"kid\":\"weak\",\"e\":\"AQAB\",\"n\":\"\(modulus(bytes: 128))\"}",
                "k: the key weak: an RSA key of 1,024 bits; at least 2,048"
            ),
            (
                "{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"AAAB\"}",
                "k: the key without a kid: an RSA key of 1 bits; at least 2,048"
            ),
            (
                "{\"kty\":\"RSA\",\"kid\":\"r\",\"n\":\"\(modulus(bytes: 256))\"}",
                "k: the key r: an RSA key without e"
            ),
            ("{\"kty\":\"RSA\",\"kid\":\"r\\u001b[2J\"}", "k: the key r?[2J: an RSA key without n and e"),
            (
                "{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"c\",\"x\":\"AA\"}",
                "k: the key c: an EC key without y"
            ),
            (
                "{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"c\",\"x\":\"AA\",\"y\":\"AA\"}",
                "k: the key c: its numbers are no key for ES256: "
            ),
            (
                "{\"kty\":\"oct\",\"kid\":\"o\",\"k\":\"c2hvcnQ\"}",
                "k: the key o: a secret of 5 bytes is too short for HS256"
            ),
            (
                "{\"kty\":\"EC\",\"kid\":\"c\",\"x\":\"AA\",\"y\":\"AA\"}", "k: the key c: an EC key without crv"
            ),
            ("{\"kty\":\"OKP\",\"kid\":\"c\",\"x\":\"AA\"}", nil),
            ("{\"kty\":\"oct\",\"kid\":\"o\"}", "k: the key o: a key without k"),
            ("{\"kty\":\"oct\",\"kid\":\"o\",\"k\":\"?\"}", "k: the key o: its secret is no base64url"),
            ("{\"kid\":\"x\"}", "k: a key without a kty, or with a member of another type"),
            ("{\"kty\":7}", "k: a key without a kty, or with a member of another type"),
            ("\"key\"", "k: a key without a kty, or with a member of another type"),
            ("null", "k: a key without a kty, or with a member of another type"),
            ("{\"kty\":\"made-up\"}", nil), ("{\"kty\":\"EC\",\"crv\":\"secp256k1\"}", nil),
            ("{\"kty\":\"RSA\",\"use\":\"enc\"}", nil), ("{\"kty\":\"RSA\",\"alg\":\"RSA-OAEP\"}", nil),
        ] as [(String, String?)])
    func unusableKey(entry: String, reason: String?) async throws {
        let issuer = "algorithms: [HS256, RS256, ES256], jwksFile: k"
        let good = "{\"kty\":\"oct\",\"kid\":\"good\",\"k\":\"\(TokenSigner.encoded(Array(TokenSigner.secret.utf8)))\"}"
        let signer = try await TokenSigner.make("HS256")
        let token = try signer.sign(Self.claims)
        for set in ["\(entry),\(good)", "\(good),\(entry)"] {
            let verifier = try await verifier([issuer], files: ["k": "{\"keys\":[\(set)]}"])
            #expect(verifier.fault(token) == nil)
            #expect(verifier.ignored.count == (reason == nil ? 0 : 1))
            #expect(verifier.ignored.first?.hasPrefix(reason ?? "") ?? true, "\(verifier.ignored)")
        }
        // A set of which no key can be used is a mistake, and says so.
        do {
            _ = try await verifier([issuer], files: ["k": "{\"keys\":[\(entry)]}"])
            Issue.record("a set without a usable key was taken")
        } catch let error as KeyError {
            #expect(error.description.hasPrefix("k holds no key for HS256, RS256, ES256"))
            #expect(error.description.contains(reason ?? ""))
        }
    }

    @Test("a secret that is long enough for one algorithm of two is a key for that one")
    func partlyUsableKey() async throws {
        let secret = String(repeating: "s", count: 32)
        let set = "{\"keys\":[{\"kty\":\"oct\",\"k\":\"\(TokenSigner.encoded(Array(secret.utf8)))\"}]}"
        let verifier = try await verifier(["algorithms: [HS512, HS256], jwksFile: k"], files: ["k": set])
        #expect(verifier.fault(try await TokenSigner.make("HS256", secret: secret).sign(good)) == nil)
        #expect(verifier.ignored == [])
    }

    @Test("a set of keys: by kid, bound to its alg, unknown kinds skipped")
    func keySet() async throws {
        let secrets = ["a", "b"].map { String(repeating: $0, count: 32) }
        func entry(_ kid: String?, _ secret: String, _ more: String = "") -> String {
            let name = kid.map { "\"kid\":\"\($0)\"," } ?? ""
            return "{\"kty\":\"oct\",\(name)\"k\":\"\(TokenSigner.encoded(Array(secret.utf8)))\"\(more)}"
        }
        let set =
            "{\"keys\":[{\"kty\":\"made-up\",\"kid\":\"x\"},\(entry("a", secrets[0], ",\"use\":\"sig\"")),"
            + "\(entry("b", secrets[1], ",\"alg\":\"HS256\"")),\(entry("e", secrets[1], ",\"use\":\"enc\""))]}"
        let verifier = try await verifier(["algorithms: [HS256], jwksFile: k"], files: ["k": set])
        let signers = [
            try await TokenSigner.make("HS256", secret: secrets[0]),
            try await TokenSigner.make("HS256", secret: secrets[1]),
        ]
        func header(_ kid: String) -> String { "{\"alg\":\"HS256\",\"kid\":\"\(kid)\"}" }
        #expect(verifier.fault(try signers[0].sign(good, header: header("a"))) == nil)
        #expect(verifier.fault(try signers[1].sign(good, header: header("b"))) == nil)
        #expect(verifier.fault(try signers[0].sign(good, header: header("b"))) == .signature)
        #expect(verifier.fault(try signers[1].sign(good, header: header("e"))) == .unknownSigningKey)
        #expect(verifier.fault(try signers[0].sign(good, header: header("../../etc/passwd"))) == .unknownSigningKey)
        // Without a kid all of them are tried.
        #expect(verifier.fault(try signers[1].sign(good)) == nil)
        let long = String(repeating: "k", count: 257)
        #expect(verifier.fault(try signers[0].sign(good, header: header(long))) == .malformed)
        #expect(verifier.fault(try signers[0].sign(good, header: "{\"alg\":\"HS256\",\"kid\":[1]}")) == .malformed)
    }

    @Test("RSA, EC and Ed25519 keys of a set, as providers publish them")
    func publicKeySet() async throws {
        // RFC 7515 A.2 and A.3, RFC 8037 A.4: keys, and what was signed with them.
        let rsa =
            "{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ\"}"
        let ec =
            "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}"
        let set = "{\"keys\":[\(rsa),\(ec)]}"
        let verifier = try await verifier(
            ["algorithms: [RS256, ES256], jwksFile: k, claims: {user: iss}"], files: ["k": set])
        let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        let tokens = [
            "eyJhbGciOiJSUzI1NiJ9.\(payload).cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            "eyJhbGciOiJFUzI1NiJ9.\(payload).DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ]
        for token in tokens {
            #expect(
                verifier.verify(token, at: 1_300_819_000) == .verified(CallerClaims(user: "joe"), until: 1_300_819_410))
            #expect(verifier.fault(token, at: 1_300_819_410) == .expired)
        }
    }
}

@Suite("What tokens say")
struct ClaimTests {
    private static func verifier(_ more: String = "") async throws -> TokenVerifier {
        try await CredentialsTests.verifier(["algorithms: [HS256], secret: \"\(TokenSigner.secret)\"\(more)"])
    }

    private func fault(_ claims: String, _ more: String = "", at time: Int64 = now) async throws -> CredentialFault? {
        try await Self.verifier(more).fault(try await TokenSigner.make("HS256").sign(claims), at: time)
    }

    private static let exp = "\"exp\":\(now + 60)"

    @Test(
        "times, with their leeway, to the second",
        arguments: [
            ("{\"exp\":\(now)}", ", leeway: 0s", CredentialFault.expired),
            ("{\"exp\":\(now + 1)}", ", leeway: 0s", nil),
            ("{\"exp\":\(now - 30)}", "", .expired), ("{\"exp\":\(now - 29)}", "", nil),
            ("{\"exp\":\(now).5}", ", leeway: 0s", .expired), ("{\"exp\":\(now + 1).5}", ", leeway: 0s", nil),
            ("{\(exp),\"nbf\":\(now + 31)}", "", .notYetValid), ("{\(exp),\"nbf\":\(now + 30)}", "", nil),
            ("{\(exp),\"iat\":\(now + 500)}", "", nil), ("{\(exp),\"iat\":\"soon\"}", "", .malformed),
            ("{}", "", .endless), ("{}", ", requireExpiry: false", nil),
            ("{\"exp\":\"\(now + 60)\"}", "", .malformed), ("{\"exp\":null}", "", .malformed),
            ("{\"exp\":-1}", "", .expired), ("{\"exp\":9223372036854775807}", "", nil), ("{\"exp\":1e300}", "", nil),
            ("{\"exp\":[\(now + 60)]}", "", .malformed),
        ])
    func times(claims: String, more: String, expected: CredentialFault?) async throws {
        #expect(try await fault(claims, more) == expected)
    }

    @Test(
        "issuer and audience",
        arguments: [
            ("\"iss\":\"a\"", ", issuer: a", nil), ("\"iss\":\"b\"", ", issuer: a", CredentialFault.issuer),
            ("\"sub\":\"x\"", ", issuer: a", .issuer), ("\"iss\":[\"a\"]", ", issuer: a", .issuer),
            ("\"aud\":\"api\"", ", audience: [api]", nil), ("\"aud\":[\"web\",\"api\"]", ", audience: [api]", nil),
            ("\"aud\":\"apis\"", ", audience: [api]", .audience), ("\"sub\":\"x\"", ", audience: [api]", .audience),
            ("\"aud\":{\"api\":true}", ", audience: [api]", .audience), ("\"aud\":\"elsewhere\"", "", nil),
        ])
    func parties(claims: String, more: String, expected: CredentialFault?) async throws {
        #expect(try await fault("{\(claims),\(Self.exp)}", more) == expected)
    }

    @Test("each of two issuers judges its own tokens")
    func twoIssuers() async throws {
        let other = String(repeating: "z", count: 32)
        let verifier = try await CredentialsTests.verifier([
            "issuer: a, algorithms: [HS256], secret: \"\(TokenSigner.secret)\"",
            "issuer: b, algorithms: [HS256], secret: \"\(other)\", claims: {user: email}",
        ])
        let first = try await TokenSigner.make("HS256")
        let second = try await TokenSigner.make("HS256", secret: other)
        func claims(_ issuer: String) -> String {
            "{\"iss\":\"\(issuer)\",\"sub\":\"s\",\"email\":\"e@x\",\(Self.exp)}"
        }
        #expect(verifier.verify(try first.sign(claims("a"))) == .verified(CallerClaims(user: "s"), until: now + 90))
        #expect(verifier.verify(try second.sign(claims("b"))) == .verified(CallerClaims(user: "e@x"), until: now + 90))
        #expect(verifier.fault(try first.sign(claims("b"))) == .signature)
        #expect(verifier.fault(try second.sign(claims("a"))) == .signature)
        #expect(verifier.fault(try first.sign(claims("c"))) == .issuer)
    }

    @Test(
        "claims by name and by path; what cannot stand in a header is refused",
        arguments: [
            ("\"sub\":7", "", CallerClaims(user: "7")),
            ("\"sub\":null", "", CallerClaims()),
            ("\"a\":{\"b\":{\"c\":\"deep\"}}", ", claims: {user: a.b.c}", CallerClaims(user: "deep")),
            ("\"a.b\":\"flat\",\"a\":{\"b\":\"deep\"}", ", claims: {user: a.b}", CallerClaims(user: "flat")),
            ("\"https://x.example/org\":\"o\"", ", claims: {org: \"https://x.example/org\"}", CallerClaims(org: "o")),
            ("\"scope\":\"read write\"", "", CallerClaims(scopes: ["read", "write"])),
            ("\"scp\":[\"read\",\"write\"]", ", claims: {scope: scp}", CallerClaims(scopes: ["read", "write"])),
            ("\"sub\":\"Zo\u{eb}\"", "", CallerClaims(user: "Zo\u{eb}")),
            ("\"sub\":\"a\\r\\nX-Admin: 1\"", "", nil), ("\"sub\":\"\"", "", nil), ("\"sub\":\" a\"", "", nil),
            ("\"sub\":\"a\\u0000\"", "", nil), ("\"sub\":{\"id\":1}", "", nil), ("\"sub\":[\"a\"]", "", nil),
            ("\"org\":true", "", nil), ("\"tier\":1.5", "", nil),
            ("\"sub\":\"\(String(repeating: "u", count: 257))\"", "", nil),
        ] as [(String, String, CallerClaims?)])
    func names(claims: String, more: String, expected: CallerClaims?) async throws {
        let token = try await TokenSigner.make("HS256").sign("{\(claims),\(Self.exp)}")
        let verdict = try await Self.verifier(more).verify(token)
        if let expected {
            #expect(verdict == .verified(expected, until: now + 90))
        } else {
            #expect(verdict == .refused(.unusableClaim, retryAt: nil))
        }
    }

    @Test(
        "a token that says something twice is malformed (RFC 7519 §4): a backend may read the other",
        arguments: [
            "\"sub\":\"a\",\"sub\":\"b\"", "\"sub\":\"a\",\"sub\":\"a\"", "\"sub\":\"a\",\"s\\u0075b\":\"b\"",
            "\"exp\":1", "\"aud\":[],\"x\":{\"y\":[{\"a\":1,\"b\":2,\"a\":3}]}", "\"\":1,\"\":2",
            "\"a\\\"\":1,\"a\\u0022\":2",
            "\"a\":{},\"b\":[{}],\"a\":{}",
        ])
    func repeated(claims: String) async throws {
        #expect(try await fault("{\(claims),\(Self.exp)}") == .malformed)
    }

    @Test(
        "one name in several objects, and a name as a value, repeat nothing",
        arguments: [
            "\"a\":{\"b\":1},\"c\":{\"b\":2},\"b\":3", "\"a\":[{\"b\":1},{\"b\":2}]",
            "\"a\":\"a\",\"b\":[\"b\",\"b\",\"a\"]",
            "\"a\":{\"a\":{\"a\":{}}}", "\"a\\\\\":1,\"a\":\"\\\"a\\\":1,\"", "\"A\":1,\"a\":2", "\"a\":[],\"b\":{}",
        ])
    func repeatedApart(claims: String) async throws {
        #expect(try await fault("{\(claims),\(Self.exp)}") == nil)
    }

    @Test("hostile tokens are malformed, whatever they try")
    func hostile() async throws {
        let verifier = try await Self.verifier()
        let signer = try await TokenSigner.make("HS256")
        let token = try signer.sign(good)
        let parts = token.split(separator: ".").map(String.init)
        var tokens = [
            "", ".", "..", "...", "a.b", "a.b.c", "\(token).", ".\(token)", "\(token).\(parts[2])", "\(token)=",
            "\(parts[0]).\(parts[1])", "\(parts[0]) .\(parts[1]).\(parts[2])", token.replacing("_", with: "/") + "+",
            "{\"alg\":\"HS256\"}.{}.x", String(repeating: "a", count: 100_000), String(repeating: ".", count: 8_000),
            "\(parts[0]).\(String(repeating: "A", count: 8_000)).\(parts[2])", "\u{0}.\u{0}.\u{0}",
        ]
        // A spelling of its own for the same bytes: bits that belong to no byte.
        let last = parts[2].last.map { $0 == "A" ? "B" : "B" } ?? "B"
        tokens.append("\(parts[0]).\(parts[1]).\(parts[2].dropLast())\(last)")
        for header in [
            "", "null", "[]", "\"HS256\"", "{}", "{\"alg\":null}", "{\"alg\":[\"HS256\"]}", "{\"alg\":{}}",
            "{\"alg\":\"HS256\",\"crit\":[\"exp\"]}", "{\"alg\":\"HS256\",\"b64\":false,\"crit\":[\"b64\"]}",
            "{\"alg\":\"HS256\"", "{\"alg\":\"HS256\"}}", "{\"alg\":\"HS256\"} {}",
            "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"typ\":\"JWT\"}", "{\"alg\":\"HS256\",\"kid\":\"a\",\"kid\":\"b\"}",
        ] {
            tokens.append(try signer.sign(good, header: header))
        }
        for claims in ["", "null", "[1]", "\"sub\"", "{\"exp\":", String(repeating: "[", count: 3_000)] {
            tokens.append(try signer.sign(claims))
        }
        let deep = String(repeating: "{\"a\":", count: 400) + "1" + String(repeating: "}", count: 400)
        tokens.append(try signer.sign("{\"deep\":\(deep),\(Self.exp)}"))
        let hidden = String(repeating: "]", count: 400)
        tokens.append(try signer.sign("{\"x\":\"\(hidden)\",\"deep\":\(deep),\(Self.exp)}"))
        for token in tokens {
            let fault = verifier.fault(token)
            #expect(fault == .malformed || fault == .signature, "\(token.prefix(60))")
        }
        // Cut anywhere, nothing of it passes.
        for length in 0..<token.utf8.count { #expect(verifier.fault(String(token.prefix(length))) != nil) }
        #expect(verifier.fault(token) == nil)
        // UTF-16 and broken UTF-8 are read by nobody.
        let broken = TokenSigner.encoded(Array("{\"sub\":\"".utf8) + [0xff, 0xfe] + Array("\",\(Self.exp)}".utf8))
        #expect(verifier.fault("\(parts[0]).\(broken).\(parts[2])") == .malformed)
    }

    @Test("random bytes in the place of tokens end in a refusal")
    func random() async throws {
        let seed = UInt64.random(in: .min ... .max)
        print("seed \(seed)")
        var generator = SplitMix64(seed: seed)
        let verifier = try await Self.verifier()
        let token = Array(try await TokenSigner.make("HS256").sign(good).utf8)
        for _ in 0..<2_000 {
            var bytes = token
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let place = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0...2, using: &generator) {
                case 0: bytes[place] = UInt8.random(in: .min ... .max, using: &generator)
                case 1: bytes.remove(at: place)
                default: bytes.insert(UInt8.random(in: 0x20...0x7e, using: &generator), at: place)
                }
            }
            guard bytes != token else { continue }
            guard case .refused = verifier.verify(bytes, now: now) else {
                Issue.record("accepted: \(String(decoding: bytes, as: UTF8.self))")
                continue
            }
        }
    }
}
