// The configuration of a node as checked values. Everything is parsed and judged once, at the start or at a reload;
// nothing behind this module reads text again. Property names are the keys of the YAML.

package import Primitives

/// An address to listen on: `:8080` (all interfaces), `127.0.0.1:8080`, `[::1]:8080`. Port 0 lets the system choose.
package struct ListenAddress: Equatable, Sendable, CustomStringConvertible {
    /// `nil`: all interfaces.
    package var host: IPAddress?
    package var port: UInt16

    package var description: String {
        guard let host else { return ":\(port)" }
        return SocketAddress(ip: host, port: port).description
    }
}

package struct Configuration: Sendable {
    package var gateway = Gateway()
    package var services: [Service] = []
    /// Absent: nothing is limited.
    package var rateLimit: RateLimit?
    /// What is valid but without effect, each with its place.
    package var warnings: [ConfigurationProblem] = []

    package struct Gateway: Sendable {
        package var port = ListenAddress(host: nil, port: 8080)
        package var timeout = TimeSpan.seconds(30)
        package var admin: ListenAddress?
        /// `nil`: one for each processor.
        package var workers: Int?
        package var accessLog = AccessLog.standardOutput
        package var logFormat = LogFormat.text
        package var logLevel = LogLevel.info
        /// What the gateway calls itself in `Via` (RFC 9110 §7.6.3).
        package var via = "sluice"
        package var trustedProxies: [CIDR] = []
        package var heartbeat = TimeSpan.milliseconds(500)
        package var drain = Drain()
        package var limits = Limits()
    }

    package enum AccessLog: Equatable, Sendable {
        case off
        case standardOutput
        case file(String)
    }

    package enum LogFormat: String, CaseIterable, Sendable { case text, json }
    package enum LogLevel: String, CaseIterable, Sendable { case trace, debug, info, notice, warning, error }

    package struct Drain: Sendable {
        package var delay = TimeSpan.zero
        package var timeout = TimeSpan.seconds(30)
    }

    package struct Service: Sendable {
        package var name: String
        /// Begins with a slash and does not end with one, except the root.
        package var path: String
        package var stripPrefix = true
        package var hostHeader = HostHeader.client
        package var upgrades: [String] = ["websocket"]
        package var timeouts: Timeouts
        package var strategy = Strategy.roundRobin
        package var hashOn = HashKey.client
        package var instances: [Backend] = []
        package var leastConnections = LeastConnectionsScope.node
        package var pool = Pool()
        /// `nil`: that of the gateway.
        package var bodyBytes: ByteCount?
        package var health = Health()
        package var circuitBreaker = CircuitBreaker()
    }

    package enum HostHeader: String, CaseIterable, Sendable { case client, backend }
    package enum LeastConnectionsScope: String, CaseIterable, Sendable { case node, cluster }

    package enum Strategy: String, CaseIterable, Sendable {
        case roundRobin = "round_robin"
        case weightedRoundRobin = "weighted_round_robin"
        case leastConnections = "least_connections"
        case consistentHash = "consistent_hash"
    }

    package enum HashKey: Equatable, Sendable {
        case client
        case user
        case header(String)
        case cookie(String)
        case path
    }

    package struct Timeouts: Sendable {
        package var connect = TimeSpan.seconds(2)
        /// The longest wait for the backend's next bytes while it is its turn.
        package var response: TimeSpan
        /// How long a backend connection may lie idle.
        package var idle = TimeSpan.seconds(60)
    }

    /// Connections to one backend from one node.
    package struct Pool: Sendable {
        /// Idle connections kept.
        package var idle = 64
        /// All connections; 0: no limit.
        package var connections = 0
    }

    package struct Backend: Equatable, Sendable {
        /// As configured, without a trailing slash: the backend's identity.
        package var url: String
        package var host: String
        package var port: UInt16
        package var weight = 1

        /// `host:port` as it stands in the URL, for `Host` and `X-Origin-Host`.
        package var authority: String { String(url.dropFirst("http://".count)) }
    }

    package struct Health: Sendable {
        package var active = true
        package var path = "/health"
        package var method = "GET"
        /// Statuses that count as healthy.
        package var expect: [ClosedRange<Int>] = [200...200]
        package var interval = TimeSpan.seconds(30)
        package var warningInterval = TimeSpan.seconds(10)
        package var downInterval = TimeSpan.seconds(5)
        package var timeout = TimeSpan.seconds(5)
        package var failures = 3
        package var successes = 3
        package var quorum = Quorum.majority
        /// How long a backend that failed in traffic stays out before it is tried again.
        package var cooldown = TimeSpan.seconds(10)
    }

    package enum Quorum: Equatable, Sendable {
        case any
        case majority
        case count(Int)
    }

    package struct CircuitBreaker: Sendable {
        package var failures = 5
        package var openFor = TimeSpan.seconds(30)
    }

    package struct RateLimit: Sendable {
        /// 1...10^12.
        package var requestsPerSecond: Int
        /// The token bucket's size when there is no Redis; `requestsPerSecond` where it is not given.
        package var burstSize: Int
        /// `nil`: limits in memory.
        package var redisURL: RedisURL?
        package var timeout = TimeSpan.milliseconds(50)
        package var onRedisLoss = LossRule.share
    }

    package enum LossRule: String, CaseIterable, Sendable { case share, open, closed }
}
