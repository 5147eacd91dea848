import Foundation
import Primitives
import Testing

@testable import Configuration

@Suite("Policies in the file")
struct PolicyTests {
    @Test("the example file loads, and says what it says")
    func example() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("configs/policies.yaml").path
        let limit = try #require(try Configuration.load(path: path, environment: [:]).rateLimit)
        #expect(limit.requestsPerSecond == nil)
        #expect(
            limit.policies.map(\.name) == [
                "login", "token-refresh", "health", "per-client", "per-tenant", "api-total", "per-client-daily",
                "per-client-at-once", "per-client-strict",
            ])
        #expect(
            limit.policies[0]
                == Configuration.Policy(
                    name: "login", limit: 5, window: .seconds(60), concurrent: false, key: .ip, tiers: [],
                    scope: Configuration.PolicyScope(services: ["auth"], paths: ["/auth/login"]), mode: .enforce,
                    cost: Configuration.PolicyCost(), precision: .exact, localFirst: false))
        #expect(limit.policies[4].key == .header("x-tenant"))
        #expect(limit.policies[4].window == .seconds(3_600))
        #expect(limit.policies[5].key == .service)
        #expect(limit.policies.firstIndex { $0.mode == .shadow } == 8)
        #expect(limit.policies[6].cost.paths == ["/api/search": 10])
        #expect(limit.policies[6].precision == .buckets)
        #expect(limit.policies[7].concurrent && limit.policies[7].limit == 20)
    }

    @Test("windows from 100 ms to 30 days", arguments: [("100ms", 100), ("30d", 2_592_000_000)])
    func windows(text: String, milliseconds: Int64) throws {
        let limit = try #require(
            try parse(
                file(rateLimit: "  policies: [{name: a, limit: 1, window: \(text), key: global}]")
            ).rateLimit)
        #expect(limit.policies[0].window == .milliseconds(milliseconds))
        #expect(limit.policies[0].key == .global)
    }

    @Test("costs by method and path, precision, and a first pass")
    func forms() throws {
        let limit = try #require(
            try parse(
                file(
                    rateLimit: """
                          policies:
                            - name: a
                              limit: 50
                              window: 1h
                              precision: buckets
                              localFirst: true
                              cost: {default: 2, methods: {POST: 5, OPTIONS: 0}, paths: {/search: 10}}
                            - {name: b, limit: 1, window: 1h}
                        """)
            ).rateLimit)
        #expect(
            limit.policies[0].cost
                == Configuration.PolicyCost(base: 2, methods: ["POST": 5, "OPTIONS": 0], paths: ["/search": 10]))
        #expect(limit.policies.map { $0.precision } == [.buckets, .exact])
        #expect(limit.policies.map(\.localFirst) == [true, false])
        #expect(limit.policies[1].cost == Configuration.PolicyCost())
    }

    @Test(
        "costs that cannot be",
        arguments: [
            ("cost: {default: 6}", "a request of 6 could never pass a limit of 5"),
            ("cost: {methods: {POST: 300}}", "is out of range; write a number in 0"),
            ("cost: {methods: {post: 1}}", "methods are case-sensitive; write POST"),
            ("cost: {paths: {search: 1}}", "search"),
            ("cost: {path: 1}", "did you mean"),
            ("precision: rough", "exact"),
            ("concurrent: 5", "make two policies of it"),
        ])
    func wrong(text: String, message: String) {
        let all = errors(file(rateLimit: "  policies: [{name: a, limit: 5, window: 1s, \(text)}]"))
        #expect(!all.isEmpty && all.contains { $0.contains(message) }, "\(all)")
    }

    @Test("requests at once: how many, and how long one counts whose node is gone")
    func concurrent() throws {
        let limit = try #require(
            try parse(
                file(
                    rateLimit: """
                          policies:
                            - {name: a, concurrent: 7}
                            - {name: b, concurrent: 1, lease: 1m, key: global}
                        """)
            ).rateLimit)
        #expect(limit.policies.map(\.concurrent) == [true, true])
        #expect(limit.policies.map(\.limit) == [7, 1])
        #expect(limit.policies.map(\.window) == [.seconds(10), .seconds(60)])
        #expect(errors(file(rateLimit: "  policies: [{name: a, concurrent: 0}]")).count == 1)
        #expect(errors(file(rateLimit: "  policies: [{name: a, concurrent: 1, lease: 1ms}]")).count == 1)
    }
}
