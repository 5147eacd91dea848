import Primitives
import Testing

@testable import Identity

@Suite("Callers and what is remembered of them")
struct CallerTests {
    private static let forward = ForwardNames(user: "X-User", org: "X-Org", tier: "X-Tier", key: "X-Key-ID")

    @Test("a caller knows its subjects, its tier and its lines")
    func caller() {
        let claims = CallerClaims(user: "42", org: "acme", tier: "gold", keyID: "ab12", scopes: ["read"])
        let caller = Caller(claims, tiers: ["free", "gold"], forward: Self.forward)
        #expect(caller.tier == 1)
        #expect(caller.user?.counted(by: 3).policy == 3)
        #expect(caller.user?.description == "text:42")
        #expect(caller.user?.counted(by: 1) != caller.user?.counted(by: 2))
        #expect(
            String(decoding: caller.forwardLines, as: UTF8.self)
                == "X-User: 42\r\nX-Org: acme\r\nX-Tier: gold\r\nX-Key-ID: ab12\r\n")
        #expect(String(decoding: caller.logName, as: UTF8.self) == "user:42")
        #expect(caller.has(scopes: []) && caller.has(scopes: ["read"]) && !caller.has(scopes: ["read", "write"]))
        let nobody = Caller(CallerClaims(), tiers: ["free"], forward: Self.forward)
        #expect(nobody.tier == -1 && nobody.user == nil && nobody.forwardLines.isEmpty && nobody.userHash == nil)
    }

    @Test("names in logs hold no space, quote or backslash")
    func logName() {
        for (user, expected) in [
            ("a b", "user:a%20b"), ("\"\\%", "user:%22%5c%25"), ("\u{eb}", "user:%c3%ab"), ("\u{1}", "user:%01"),
        ] {
            let caller = Caller(CallerClaims(user: user), tiers: [], forward: ForwardNames())
            #expect(String(decoding: caller.logName, as: UTF8.self) == expected)
        }
        let key = Caller(CallerClaims(keyID: "ab"), tiers: [], forward: ForwardNames())
        #expect(String(decoding: key.logName, as: UTF8.self) == "key:ab")
    }

    @Test("the digest is SipHash-2-4 with 128 bits, as its authors' vectors say")
    func vectors() {
        // Key 00 01 … 0f, text 00 01 … : the first rows of the reference implementation's vectors_siphash128.
        let k0: UInt64 = 0x0706_0504_0302_0100
        let k1: UInt64 = 0x0f0e_0d0c_0b0a_0908
        let rows: [(Int, UInt64, UInt64)] = [
            (0, 0xe6a8_25ba_047f_81a3, 0x9302_55c7_1472_f66d), (1, 0x44af_996b_d8c1_87da, 0x45fc_229b_1159_7634),
        ]
        for (length, low, high) in rows {
            let text = (0..<UInt8(length)).map { $0 }
            let digest = CredentialDigest(text.span, k0: k0, k1: k1)
            #expect(digest.low == low && digest.high == high)
        }
    }

    private static let key = DigestKey(low: 1, high: 2)
    private static func digest(_ text: String, _ kind: CredentialKind = .token) -> CredentialDigest {
        let bytes = Array(text.utf8)
        return CredentialDigest(bytes.span, kind, key: key)
    }

    @Test("digests differ by text, by kind and by key")
    func digests() {
        var seen: Set<CredentialDigest> = []
        for length in 0..<200 {
            let text = String(repeating: "a", count: length)
            let bytes = Array(text.utf8)
            for kind in [CredentialKind.token, .apiKey] {
                #expect(seen.insert(Self.digest(text, kind)).inserted)
                #expect(seen.insert(CredentialDigest(bytes.span, kind, key: DigestKey(low: 3, high: 4))).inserted)
            }
        }
    }

    private static let start = MonotonicTime(nanoseconds: 1)
    private static func caller(_ user: String) -> CredentialOutcome {
        .verified(Caller(CallerClaims(user: user), tiers: [], forward: ForwardNames()))
    }
    private static func name(_ outcome: CredentialOutcome?) -> String? {
        if case .verified(let caller)? = outcome { return String(decoding: caller.logName, as: UTF8.self) }
        return nil
    }

    @Test("an outcome is remembered until its time, and gone when all is forgotten")
    func remembering() {
        var cache = CallerCache(goodMax: 64, badMax: 64)
        let end = Self.start + .seconds(10)
        cache.insert(Self.digest("a"), Self.caller("1"), until: end, at: Self.start)
        cache.insert(Self.digest("b"), .refused(.expired), until: end, at: Self.start)
        cache.insert(Self.digest("c"), .unavailable, until: end, at: Self.start)
        cache.insert(Self.digest("d"), Self.caller("4"), until: Self.start, at: Self.start)
        #expect(Self.name(cache.find(Self.digest("a"), at: end - .nanoseconds(1))) == "user:1")
        #expect(cache.find(Self.digest("a"), at: end) == nil)
        guard case .refused(.expired)? = cache.find(Self.digest("b"), at: Self.start) else {
            Issue.record("a refusal is forgotten")
            return
        }
        #expect(cache.find(Self.digest("c"), at: Self.start) == nil)
        #expect(cache.find(Self.digest("d"), at: Self.start) == nil)
        #expect(cache.count == 2)
        cache.remove(.all)
        #expect(cache.find(Self.digest("a"), at: Self.start) == nil && cache.count == 0)
    }

    @Test(
        "a change of API keys concerns their callers alone, and whoever was refused",
        arguments: [
            (CredentialChange.key(id: "ab"), ["token", "other"]), (.key(id: "none"), ["token", "key", "other"]),
            (.key(id: ""), ["token", "key", "other"]), (.keys, ["token"]), (.all, []),
        ])
    func changes(_ which: CredentialChange, _ kept: [String]) {
        var cache = CallerCache(goodMax: 64, badMax: 64)
        let end = Self.start + .seconds(10)
        func key(_ id: String) -> CredentialOutcome {
            let claims = CallerClaims(user: "7", keyID: id)
            return .verified(Caller(claims, tiers: [], forward: ForwardNames()))
        }
        cache.insert(Self.digest("token"), Self.caller("1"), until: end, at: Self.start)
        cache.insert(Self.digest("key"), key("ab"), until: end, at: Self.start)
        cache.insert(Self.digest("other"), key("abc"), until: end, at: Self.start)
        cache.insert(Self.digest("bad"), .refused(.unknownAPIKey), until: end, at: Self.start)
        cache.remove(which)
        #expect(
            ["token", "key", "other", "bad"].filter { cache.find(Self.digest($0), at: Self.start) != nil } == kept)
    }

    @Test("it is bounded, and a flood of bad tokens pushes out no good one")
    func bound() {
        var cache = CallerCache(goodMax: 256, badMax: 64)
        let end = Self.start + .seconds(10)
        for index in 0..<32 {
            cache.insert(Self.digest("good\(index)"), Self.caller("\(index)"), until: end, at: Self.start)
        }
        let kept = (0..<32).filter { cache.find(Self.digest("good\($0)"), at: Self.start) != nil }
        for index in 0..<10_000 {
            cache.insert(Self.digest("bad\(index)"), .refused(.signature), until: end, at: Self.start)
        }
        #expect(cache.count <= 32 + 64)
        for index in kept {
            #expect(Self.name(cache.find(Self.digest("good\(index)"), at: Self.start)) == "user:\(index)")
        }
        #expect(kept.count > 24)
        for index in 0..<10_000 {
            cache.insert(Self.digest("more\(index)"), Self.caller("x"), until: end, at: Self.start)
        }
        #expect(cache.count <= 256 + 64)
        // The latest is always there.
        #expect(cache.find(Self.digest("more9999"), at: Self.start) != nil)
    }
}
