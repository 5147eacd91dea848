import Configuration
import Testing

@testable import Gateway

@Suite("The name of a configuration")
struct SharedNameTests {
    private static let service = "services:\n  - {name: a, path: /a, instances: ['http://localhost:1']}\n"

    private func name(_ text: String) throws -> String {
        try Configuration.parse(Self.service + text, file: "f", environment: [:]).sharedName
    }

    @Test("the order of a mapping says nothing")
    func mapping() throws {
        // As many as make two dictionaries differ in their order.
        let paths = (1...40).map { "'/p\($0)': \($0)" }
        func text(_ paths: [String]) -> String {
            """
            rateLimit:
              policies:
                - {name: p, limit: 100, window: 1m, key: ip, cost: {paths: {\(paths.joined(separator: ", "))}}}
            """
        }
        #expect(try name(text(paths)) == name(text(paths.reversed())))
        #expect(try name(text(paths)) != name(text(Array(paths.dropLast()))))
    }

    @Test(
        "what is a node's own is not in it",
        arguments: [
            "gateway: {port: ':8181', admin: '127.0.0.1:9902', accessLog: false, workers: 3}",
            "rateLimit: {requestsPerSecond: 5, redisURL: 'redis://elsewhere:1', decisionLog: /tmp/d}",
        ])
    func own(_ text: String) throws {
        #expect(try name(text) == name(text.hasPrefix("rateLimit") ? "rateLimit: {requestsPerSecond: 5}" : ""))
    }

    @Test("what all nodes must agree on is, and each difference is another name")
    func shared() throws {
        func auth(_ realm: String) -> String {
            """
            auth:
              realm: \(realm)
              jwt: [{name: p, algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef}]
            """
        }
        let texts = [
            "", "gateway: {timeout: 7s}", "rateLimit: {requestsPerSecond: 5}", "rateLimit: {requestsPerSecond: 6}",
            "rateLimit: {requestsPerSecond: 5, onRedisLoss: closed}", auth("x"), auth("y"),
        ]
        #expect(try Set(texts.map { try name($0) }).count == texts.count)
    }
}
