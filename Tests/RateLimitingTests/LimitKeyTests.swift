import Identity
import Primitives
import Testing

@testable import RateLimiting

@Suite("Keys and subjects as text")
struct LimitKeyTests {
    private static let policies = [
        Policy(name: "default", limit: 100, window: .seconds(1), burst: 1),
        Policy(name: "a.b-c_d", limit: 1, window: .milliseconds(1_500), burst: 1, key: .global),
        Policy(name: "day", limit: 100_000, window: .seconds(86_400), burst: 1, key: .service, form: .buckets),
        Policy(name: "files", limit: 10, window: .seconds(10), burst: 1, key: .user, form: .leases),
        Policy(name: "tenant", limit: 3, window: .seconds(3_600), burst: 1, key: .header("x-tenant")),
    ]

    @Test("a key is read as limiters write it, on a server and on a cluster", arguments: policies, [false, true])
    func roundTrip(policy: Policy, onCluster: Bool) throws {
        let writer = WindowKey(policy, services: ["user-service"], onCluster: onCluster)
        let text = Array("jane@example.com: 1".utf8)
        let named = [text.count, 5].map { SubjectKey(text: text.span.extracting(0..<$0), policy: 0) }
        let own =
            switch policy.key {
            case .ip: [SubjectKey]()
            case .service: [SubjectKey(service: 0, policy: 0)]
            case .global: [SubjectKey(globalOf: 0)]
            case .user, .org, .apiKey, .header: named
            }
        for subject in own + [
            SubjectKey(IPAddress(v4: 0xcb00_7107)), SubjectKey(try #require(IPAddress("2001:db8::1"))),
            SubjectKey(IPAddress(v6High: 0, low: 1)),
        ] {
            let name = writer.text(subject)
            let key = try #require(LimitKey(name), "\(name)")
            #expect(key.text(onCluster: onCluster) == name)
            #expect(key.policy == policy.name)
            #expect(key.limit == policy.limit)
            #expect(key.form == policy.form)
            #expect(key.window == (policy.form == .leases ? nil : policy.window))
            #expect(key == LimitKey(policy, subject: key.subject))
        }
    }

    @Test(
        "what is no window is none",
        arguments: [
            "", "sluice:nodes", "rate_limit:", "rate_limit:a:1/1s", "rate_limit:a:1/1s:", "rate_limit:a:b/1s:global",
            "rate_limit:a:1/1:global", "rate_limit:a:01/1s:global", "rate_limit:a:1/1000ms:global",
            "rate_limit:{a:1/1s:global", "rate_limit:{b}:probe", "rate_limit:default:100/1s:",
            "rate_limit:a:1/concurrent",
            "rate_limit:a:1/1s/bucket:global", "rate_limit:a:1/1s:user:\u{1b}[2J", "rate_limit:a:1/1s:user:\u{9b}2J",
            "rate_limit:a:1/1s/buckets/x:global", "rate_limit:a:1/1s:user:a b", "rate_limit:a:1/1s:user:j\u{f6}rg",
            "rate_limit:a:1/1s:user:a%2Fb", "rate_limit:a:1/1s:tenant:1", "rate_limit:a:1/1s:1",
            "rate_limit:a:1/1s:ip:2001:db8::1", "rate_limit:a:1/1s:ip:192.0.2.1/24", "rate_limit:a:1/1s:header:x:",
        ])
    func others(key: String) { #expect(LimitKey(key) == nil) }

    @Test(
        "subjects are read as keys have them, or as people do",
        arguments: [
            ("203.0.113.7", "ip:203.0.113.7"), ("ip:203.0.113.7", "ip:203.0.113.7"),
            ("ip:2001:db8:1:2:3::4", "ip:2001:db8:1:2::/64"), ("ip:2001:db8:1:2::/64", "ip:2001:db8:1:2::/64"),
            ("2001:db8::", "ip:2001:db8::/64"), ("::ffff:192.0.2.1", "ip:192.0.2.1"), ("user:42", "user:42"),
            ("user:a b", "user:a%20b"), ("user:a%20b", "user:a%20b"), ("user:50%", "user:50%25"),
            ("org:acme:co", "org:acme%3aco"), ("key:3f0c", "key:3f0c"), ("apiKey:3f0c", "key:3f0c"),
            ("global", "global"),
            ("service:user-service", "service:user-service"), ("header:X-Tenant:acme co", "header:x-tenant:acme%20co"),
            ("user:~0123456789abcdef0123456789abcdef", "user:~0123456789abcdef0123456789abcdef"),
        ])
    func subjects(written: String, inRedis: String) throws {
        #expect(try LimitSubject(parsing: written).description == inRedis)
        #expect(try LimitSubject(parsing: inRedis).description == inRedis)
    }

    @Test("whatever a name is made of, the subject that its key shows is read as itself, and so is the name")
    func names() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SplitMix64(seed: seed)
        let kinds: [(PolicyKey, String)] = [
            (.user, "user:"), (.org, "org:"), (.apiKey, "key:"), (.header("x-a!#$&'*+^`|~"), "header:X-A!#$&'*+^`|~:"),
        ]
        let alphabet = Array(" {}:|/%~*?[]\\\"'$&;<>(),.-_aZ0\u{e9}\u{20ac}\u{1f600}e\u{301}")
        func check(_ name: String, isRaw: Bool) throws {
            for (key, kind) in kinds {
                for onCluster in [false, true] {
                    let policy = Policy(name: "p", limit: 3, window: .seconds(60), burst: 1, key: key)
                    let bytes = Array(name.utf8)
                    let subject = SubjectKey(text: bytes.span, policy: 0)
                    let text = WindowKey(policy, services: [], onCluster: onCluster).text(subject)
                    let context = Comment(rawValue: "seed \(seed): \(name) in \(text)")
                    let shown = try #require(LimitKey(text), context).subject
                    #expect(try LimitSubject(parsing: shown).description == shown, context)
                    if isRaw { #expect(try LimitSubject(parsing: kind + name).description == shown, context) }
                }
            }
        }
        for _ in 0..<2_000 {
            let name = String(
                (0..<Int.random(in: 1...20, using: &random)).map { _ in
                    alphabet[Int.random(in: 0..<alphabet.count, using: &random)]
                })
            // A name that looks as if a key had written it is taken for that.
            try check(name, isRaw: !name.contains("%"))
        }
        for name in ["a%20b", "%7b", "100%", "~0123456789abcdef0123456789abcdef", "~", "key|1", "a:b:c", "{x}"] {
            try check(name, isRaw: !["a%20b", "%7b"].contains(name) && name.count < 33)
        }
    }

    @Test("a long name is digested as the limiter does it")
    func digest() throws {
        let name = "somebody-with-a-long-name@example.com"
        let bytes = Array(name.utf8)
        var text: [UInt8] = []
        SubjectKey(text: bytes.span, policy: 0).appendValue(to: &text)
        #expect(
            try LimitSubject(parsing: "user:\(name)").description == "user:\(String(decoding: text, as: UTF8.self))")
        #expect(text.first == UInt8(ascii: "~"))
    }

    @Test(
        "what is no subject is told of, with those that there are",
        arguments: [
            "", ":", "ip", "ip:", "ip:localhost", "usr:42", "header:x", "header::x", "header:x:", "42", "user:",
        ])
    func wrong(text: String) {
        #expect(throws: LimitSubject.NotOne.self) { try LimitSubject(parsing: text) }
        do throws(LimitSubject.NotOne) { _ = try LimitSubject(parsing: text) } catch {
            #expect(error.description.contains("user:NAME"))
        }
    }

    @Test("who shows no credential is counted by address, and nobody is counted by another's policy")
    func counting() throws {
        func counts(_ text: String, _ key: PolicyKey) throws -> [Bool] {
            let subject = try LimitSubject(parsing: text)
            return [subject.isCounted(by: key), subject.isOwn(of: key)]
        }
        #expect(try counts("192.0.2.1", .ip) == [true, true])
        for key in [PolicyKey.user, .org, .apiKey, .header("x")] {
            #expect(try counts("192.0.2.1", key) == [true, false])
        }
        #expect(try counts("192.0.2.1", .global) == [false, false])
        #expect(try counts("user:1", .user) == [true, true])
        #expect(try counts("user:1", .org) == [false, false])
        #expect(try counts("header:X-A:1", .header("x-a")) == [true, true])
        #expect(try counts("header:X-A:1", .header("x-b")) == [false, false])
        #expect(try counts("service:a", .service) == [true, true])
    }

    @Test("patterns find what they name, whatever stands in it")
    func patterns() throws {
        #expect(LimitKey.pattern(onCluster: false) == "rate_limit:*")
        #expect(LimitKey.pattern(policy: "login", onCluster: true) == "rate_limit:{login:*:*}")
        let subject = try LimitSubject(parsing: "header:x*:a")
        #expect(LimitKey.pattern(subject: subject, onCluster: false) == "rate_limit:*:*:header:x\\*:a")
    }

    @Test("a window in buckets is read as the limiter reads it: without those that have left")
    func buckets() {
        let now = RedisTime(microseconds: 1_000_000_000)
        let read = LimitContent.buckets(
            [(999_000_000, 5), (999_500_000, 0), (1_000_010_000, 7), (998_999_999, 3)], window: .seconds(1), at: now)
        #expect(read.used == 12)
        #expect(read.freesAt == now)
        #expect(LimitContent.buckets([], window: .seconds(1), at: now).freesAt == nil)
    }
}
