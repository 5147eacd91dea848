import Configuration
import Identity
import Primitives
import RateLimiting
import TestSupport
import Testing

@testable import Gateway

@Suite("Limits, tried on a log")
struct LimitRehearsalTests {
    private func entry(
        _ milliseconds: Int64, _ client: String = "192.0.2.1", _ request: String = "GET /", identity: String? = nil
    ) throws -> AccessLogEntry {
        let stamp = "2026-03-01T12:00:00Z ::1 \"\" 200 0 0 1us main http://a:1 -"
        var entry = try AccessLogEntry(Array(stamp.utf8)[...])
        entry.time += milliseconds * 1_000
        entry.client = try #require(IPAddress(client))
        entry.request = Array(request.utf8)
        entry.identity = identity
        return entry
    }

    private func load(_ rateLimit: String, auth: String = "") throws -> Configuration {
        try Configuration.parse(
            """
            services:
              - {name: api, path: /api, instances: ["http://a:1"]}
              - {name: auth, path: /auth/, instances: ["http://a:2"]}
            rateLimit: {\(rateLimit)}
            \(auth)
            """, file: "test.yaml")
    }

    private func rehearsal(_ configuration: Configuration) throws -> LimitRehearsal {
        LimitRehearsal(RehearsedPolicy.all(of: try #require(configuration.rateLimit)), configuration, seed: 1)
    }

    @Test("an exact window decides as its definition does, whatever comes", arguments: [1, 3, 200])
    func exact(limit: Int) throws {
        var generator = SplitMix64(seed: UInt64(limit))
        let policy = Policy(name: "a", limit: limit, window: .seconds(1), burst: 1)
        let rehearsal = LimitRehearsal([RehearsedPolicy(policy)], nil, seed: 2)
        var admitted: [[Int64]] = [[], [], []]
        var refused = [0, 0, 0]
        var time: Int64 = 0
        for line in 0..<20_000 {
            time += Int64.random(in: 0...(limit > 100 ? 3 : 300), using: &generator)
            let client = Int.random(in: 0..<3, using: &generator)
            rehearsal.take(try entry(time, "192.0.2.\(client)"), line: line)
            admitted[client].removeAll { time - $0 >= 1_000 }
            if admitted[client].count < limit { admitted[client].append(time) } else { refused[client] += 1 }
        }
        #expect(refused.min() ?? 0 > 100)
        #expect(rehearsal.refused == refused.reduce(0, +))
        for row in rehearsal.refusedMost(10) {
            let client = try #require(row.subject.last.flatMap { Int(String($0)) })
            #expect(row.tally.refused == refused[client])
        }
    }

    @Test("in buckets, a slot is free again when its hundredth of the window has left, and never earlier")
    func buckets() throws {
        let policy = Policy(name: "a", limit: 2, window: .seconds(100), burst: 1, form: .buckets)
        let rehearsal = LimitRehearsal([RehearsedPolicy(policy)], nil, seed: 2)
        for (time, refusals) in [
            (100, 0), (600, 0), (99_000, 1), (100_900, 2), (101_000, 2), (101_001, 2), (101_002, 3),
        ] {
            rehearsal.take(try entry(Int64(time)), line: 1)
            #expect(rehearsal.refused == refusals, "\(time)")
        }
    }

    @Test("all policies decide together, a refused request takes nothing, and a shadow refuses nobody")
    func together() throws {
        let rehearsal = try rehearsal(
            try load(
                """
                policies: [{name: client, limit: 3, window: 1m}, {name: total, limit: 4, window: 1h, key: global}, \
                {name: shade, limit: 1, window: 1h, mode: shadow}, \
                {name: login, limit: 1, window: 1h, services: [auth], paths: [/auth/login]}]
                """))
        // The third of two clients each; the fifth of all is too many.
        for (line, client) in [1, 1, 1, 1, 2, 2].enumerated() {
            rehearsal.take(try entry(Int64(line), "192.0.2.\(client)", "GET /api/x"), line: line + 1)
        }
        #expect(rehearsal.requests == 6)
        #expect(rehearsal.refused == 2)
        #expect(rehearsal.totals.map(\.requests) == [6, 6, 4, 0])
        #expect(rehearsal.totals.map(\.refused) == [1, 1, 2, 0])
        // After a minute the client has its three again: what the others refused took none of them.
        rehearsal.take(try entry(61_000, "192.0.2.2", "GET /api"), line: 7)
        #expect(rehearsal.totals.map(\.refused) == [1, 2, 2, 0])
        for path in ["/auth/login", "/auth/%6cogin", "/authx", "/auth/other"] {
            rehearsal.take(try entry(62_000, "192.0.2.9", "GET \(path)"), line: 8)
        }
        #expect(rehearsal.totals[3].requests == 2)
        #expect(rehearsal.others.unrouted == 1)
        let row = try #require(rehearsal.refusedMost(5).first { $0.policy == "client" })
        #expect(row.subject == "ip:192.0.2.1")
        #expect(row.tally.first?.line == 4)
        #expect(rehearsal.subjects(of: 0).all == 3)
    }

    @Test("a shadow counts what the other policies let pass, as a node has it")
    func shadows() throws {
        let rehearsal = try rehearsal(
            try load(
                "policies: [{name: client, limit: 3, window: 1m}, {name: shade, limit: 1, window: 1h, mode: shadow}]"))
        for line in 0..<10 { rehearsal.take(try entry(Int64(line), "192.0.2.1", "GET /api"), line: line) }
        #expect(rehearsal.totals.map(\.requests) == [10, 3])
        #expect(rehearsal.totals.map(\.refused) == [7, 2])
        rehearsal.take(try entry(500, "192.0.2.2", "GET /api"), line: 10)
        #expect(rehearsal.totals.map(\.requests) == [11, 4])
        // After a minute three more pass.
        for line in 11..<20 { rehearsal.take(try entry(60_010, "192.0.2.1", "GET /api"), line: line) }
        #expect(rehearsal.totals.map(\.requests) == [20, 7])
        #expect(rehearsal.totals.map(\.refused) == [13, 5])
    }

    @Test("costs, services and users count as a node counts them")
    func costs() throws {
        let rehearsal = try rehearsal(
            try load(
                """
                requestsPerSecond: 100, policies: [\
                {name: weighed, limit: 10, window: 1m, key: service, cost: {methods: {POST: 4, OPTIONS: 0}}}, \
                {name: user, limit: 2, window: 1m, key: user}]
                """, auth: "auth: {jwt: [{name: a, secret: \"0123456789abcdef0123456789abcdef\", algorithms: [HS256]}]}"
            ))
        for (line, request) in ["POST /api", "POST /api", "POST /api", "GET /api", "OPTIONS /api"].enumerated() {
            rehearsal.take(try entry(Int64(line), "192.0.2.\(line)", request), line: line)
        }
        #expect(rehearsal.totals[1].requests == 4)
        #expect(rehearsal.totals[1].refused == 1)
        for line in 0..<3 {
            rehearsal.take(try entry(10, "198.51.100.\(line)", "GET /auth", identity: "user:jane%20doe"), line: line)
        }
        #expect(rehearsal.totals[2].refused == 1)
        #expect(rehearsal.refusedMost(5).map(\.subject).sorted() == ["service:api", "user:jane%20doe"])
    }

    @Test(
        "no spelling of a path makes a request cheaper: of what it costs with encoded slashes as names and as borders, it pays the more",
        arguments: [
            ("/api/v/search", 6), ("/api/v/search%2Fx", 6), ("/api/v%2Fsearch", 6), ("/api/v/%2Fsearch?q=1", 6),
            ("/api/v/search/free", 0), ("/api/v/search/free%2Fx", 6), ("/api/v%2Fcheap", 3), ("/api/v/cheap", 1),
            ("/api/v/health%2Fx", 3), ("/api/v/health/x", 0), ("/api/v/other", 3),
        ])
    func costsOfSpellings(path: String, cost: Int) throws {
        let rehearsal = try rehearsal(
            try load(
                """
                policies: [{name: weighed, limit: 6, window: 1m, cost: {default: 3, paths: \
                {/api/v/search: 6, /api/v/search/free: 0, /api/v/cheap: 1, /api/v/health: 0}}}]
                """))
        // So often does the limit hold, and once more it does not.
        let times = cost == 0 ? 20 : 6 / cost
        for line in 0..<times { rehearsal.take(try entry(Int64(line), "192.0.2.1", "GET \(path)"), line: line) }
        #expect(rehearsal.refused == 0)
        rehearsal.take(try entry(30, "192.0.2.1", "GET \(path)"), line: 99)
        #expect(rehearsal.refused == (cost == 0 ? 0 : 1))
    }

    @Test("what no limit sees is counted by itself, and lines out of order are")
    func others() throws {
        let rehearsal = try rehearsal(try load("policies: [{name: a, limit: 1, window: 1s, services: [api]}]"))
        rehearsal.take(try entry(1_000, "192.0.2.1", "GET /auth"), line: 1)
        rehearsal.take(try entry(1_000, "192.0.2.1", "GET /nowhere"), line: 2)
        for request in ["", "GET", "GET http://", "G\u{0}T /api", "CONNECT a:1", "GET /api\nX: y"] {
            rehearsal.take(try entry(1_000, "192.0.2.1", request), line: 3)
        }
        #expect(rehearsal.requests == 0)
        #expect(rehearsal.others == LimitRehearsal.Others(unrouted: 1, uncovered: 1, unlimited: 6))
        rehearsal.take(try entry(5_000, "192.0.2.1", "GET /api"), line: 9)
        rehearsal.take(try entry(3_000, "192.0.2.1", "GET /api"), line: 10)
        #expect(rehearsal.disordered == 1)
        // It is taken as of the time of the line before it.
        #expect(rehearsal.refused == 1)
    }

    @Test("with more subjects than there is room for, those who are refused most stay")
    func room() throws {
        let policy = Policy(name: "a", limit: 1, window: .seconds(3_600), burst: 1)
        let rehearsal = LimitRehearsal([RehearsedPolicy(policy)], nil, seed: 2, subjectsMax: 100)
        for line in 0..<2_000 {
            rehearsal.take(try entry(Int64(line), "10.0.\(line / 250).\(line % 250)"), line: line)
            if line % 10 == 0 { rehearsal.take(try entry(Int64(line), "192.0.2.1"), line: line) }
        }
        #expect(rehearsal.forgotten > 1_000)
        let rows = rehearsal.refusedMost(10)
        #expect(rows.map(\.subject) == ["ip:192.0.2.1"])
        #expect(rows.first?.tally.refused == 199)
        #expect(rehearsal.requests == 2_200)
    }

    @Test("what a log does not tell is an obstacle, and everything else is none")
    func obstacles() throws {
        let configuration = try load(
            """
            policies: [{name: ip, limit: 1, window: 1s}, {name: g, limit: 1, window: 1s, key: global}, \
            {name: s, limit: 1, window: 1s, key: service}, {name: u, limit: 1, window: 1s, key: user, tiers: {a: 5}}, \
            {name: o, limit: 1, window: 1s, key: org}, {name: k, limit: 1, window: 1s, key: apiKey}, \
            {name: h, limit: 1, window: 1s, key: "header:X-A"}, {name: c, concurrent: 1}]
            """, auth: "auth: {jwt: [{name: a, secret: \"0123456789abcdef0123456789abcdef\", algorithms: [HS256]}]}")
        let all = RehearsedPolicy.all(of: try #require(configuration.rateLimit))
        #expect(all.map(\.policy.name) == ["ip", "g", "s", "u", "o", "k", "h", "c"])
        #expect(all.map { $0.obstacle == nil } == [true, true, true, true, false, false, false, false])
        let changed = all[0].changed(limit: 7, window: .seconds(9), key: .global).policy
        #expect(changed.limit == 7 && changed.window == .seconds(9) && changed.key == .global)
    }
}
