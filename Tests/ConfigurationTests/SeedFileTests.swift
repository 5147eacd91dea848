import Foundation
import Primitives
import Testing

@testable import Configuration

@Suite("The seed's file")
struct SeedFileTests {
    private var path: String {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("configs/gateway.yaml").path
    }

    @Test("the seed's file loads as it stands")
    func loads() throws {
        let configuration = try Configuration.load(path: path, environment: [:])
        #expect(configuration.gateway.port == ListenAddress(host: nil, port: 8080))
        #expect(configuration.gateway.timeout == .seconds(30))
        #expect(configuration.gateway.admin == nil)
        #expect(configuration.services.map(\.name) == ["user-service", "order-service"])
        #expect(configuration.services.map(\.path) == ["/api/users", "/api/orders"])
        #expect(configuration.services.map(\.strategy) == [.roundRobin, .weightedRoundRobin])
        #expect(configuration.services[0].instances.map(\.port) == [8081, 8082, 8083])
        #expect(configuration.services[0].instances.allSatisfy { $0.host == .name("localhost") && $0.weight == 1 })
        #expect(configuration.services[0].timeouts.response == .seconds(30))
        #expect(configuration.services[0].stripPrefix)
        #expect(configuration.rateLimit?.requestsPerSecond == 100)
        #expect(configuration.rateLimit?.burstSize == 10)
        #expect(configuration.rateLimit?.redisURL?.kind == .tcp(host: .name("localhost"), port: 6379))
    }
}
