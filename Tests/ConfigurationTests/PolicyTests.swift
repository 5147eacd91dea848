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
                "login", "token-refresh", "health", "per-client", "per-tenant", "api-total", "per-client-strict",
            ])
        #expect(
            limit.policies[0]
                == Configuration.Policy(
                    name: "login", limit: 5, window: .seconds(60), key: .ip,
                    scope: Configuration.PolicyScope(services: ["auth"], paths: ["/auth/login"]), mode: .enforce))
        #expect(limit.policies[4].key == .header("x-tenant"))
        #expect(limit.policies[4].window == .seconds(3_600))
        #expect(limit.policies[5].key == .service)
        #expect(limit.policies.map { $0.mode == .shadow } == [false, false, false, false, false, false, true])
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
}
