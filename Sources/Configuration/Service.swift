package import Primitives

extension Configuration {
    /// A path prefix and the backends that serve it.
    package struct Service: Hashable, Sendable {
        /// Letters, digits, `-`, `_` and `.`: it is part of Redis keys.
        package let name: String
        /// Starts with `/` and ends without one, except that `/` itself is every path.
        package let path: String
        package let stripPrefix: Bool
        package let hostHeader: HostHeader
        /// The methods that it takes, case-sensitive; empty: all.
        package let methods: [String]
        /// The protocols, in lower case, to which a client may upgrade (RFC 9110 §7.8).
        package let upgrades: [String]
        package let timeouts: Timeouts
        package let retries: Retries
        package let limits: ServiceLimits
        package let auth: ServiceAuth
        package let strategy: Strategy
        /// What is hashed when `strategy` is `consistentHash`.
        package let hashOn: HashOn
        /// Never empty; unique by address and path.
        package let instances: [Backend]
        package let leastConnections: LeastConnections
        package let pool: Pool
        package let health: Health
        package let circuitBreaker: CircuitBreaker
        /// `nil`: nothing is changed.
        package let transforms: Transforms?
    }

    package enum HostHeader: String, CaseIterable, Hashable, Sendable {
        /// The client's own, as it came.
        case client
        /// The backend's host and port.
        case backend
    }

    package struct Timeouts: Hashable, Sendable {
        /// To open a connection to a backend.
        package let connect: TimeSpan
        /// From the end of the request to the head of the answer; `nil`: no limit.
        package let response: TimeSpan?
        /// The longest silence on a backend connection: inside an answer, in a tunnel of which one side has ended or
        /// takes nothing, or unused in the pool; `nil`: no limit.
        package let idle: TimeSpan?
        /// The longest silence in a tunnel that an upgrade has opened; `nil`: no limit.
        package let tunnel: TimeSpan?
        /// How long a tunnel lives on when its backend has left; `nil`: until it ends by itself.
        package let tunnelGrace: TimeSpan?
    }

    package struct ServiceLimits: Hashable, Sendable {
        /// `gateway.limits.bodyBytes` where the service does not say; `nil`: no limit.
        package let bodyBytes: ByteCount?
    }

    package enum Strategy: String, CaseIterable, Hashable, Sendable {
        case roundRobin = "round_robin"
        case weightedRoundRobin = "weighted_round_robin"
        case leastConnections = "least_connections"
        case consistentHash = "consistent_hash"
    }

    package enum HashOn: Hashable, Sendable {
        case client
        case user
        /// A field name in lower case.
        case header(String)
        case cookie(String)
        case path
    }

    package struct LeastConnections: Hashable, Sendable {
        package let scope: Scope
        package enum Scope: String, CaseIterable, Hashable, Sendable { case node, cluster }
    }

    /// Connections to one backend, counted on one node.
    package struct Pool: Hashable, Sendable {
        /// Kept open while unused; 0 keeps none.
        package let idle: Int
        /// In all; `nil`: no limit.
        package let connections: Int?
    }

    package struct Health: Hashable, Sendable {
        /// Whether backends are probed. Traffic counts as evidence either way.
        package let active: Bool
        package let type: ProbeType
        package let method: ProbeMethod
        package let path: String
        /// Sent with each probe; names in lower case, unique.
        package let headers: [ProbeHeader]
        package let expect: StatusSet
        /// What the body of the answer must hold; `nil`: whatever it holds.
        package let expectBody: String?
        package let interval: TimeSpan
        package let warningInterval: TimeSpan
        package let downInterval: TimeSpan
        package let timeout: TimeSpan
        /// Consecutive failures after which a node votes a backend down.
        package let failures: Int
        package let successes: Int
        package let quorum: Quorum
        /// How long a backend that traffic condemned stays out before it is tried again.
        package let cooldown: TimeSpan
        /// The longest that a backend which fails again and again is kept out at a time.
        package let cooldownMax: TimeSpan
        /// How much of the service, in percent, may be down by the evidence of traffic alone.
        package let maxEjected: Int
        /// How long a backend that has come back takes to get its whole share; zero: it has it at once.
        package let slowStart: TimeSpan
        /// `nil`: failures in a row alone count.
        package let failureShare: FailureShare?
    }

    package enum ProbeType: String, CaseIterable, Hashable, Sendable { case http, tcp }

    package struct ProbeHeader: Hashable, Sendable {
        package let name: String
        package let value: String
    }

    /// Condemns a backend by the share of requests that failed, in a row or not.
    package struct FailureShare: Hashable, Sendable {
        /// In percent.
        package let share: Int
        package let window: TimeSpan
        /// Fewer requests in the window say nothing.
        package let requests: Int
    }

    package enum ProbeMethod: String, CaseIterable, Hashable, Sendable {
        case get = "GET"
        case head = "HEAD"
        case options = "OPTIONS"
    }

    package enum Quorum: Hashable, Sendable {
        case majority
        case any
        /// 1 or more nodes.
        case count(Int)
    }

    package struct CircuitBreaker: Hashable, Sendable {
        package let failures: Int
        package let openFor: TimeSpan
        /// Whether backends are used in spite of open breakers where a service has no other.
        package let spareLast: Bool
    }
}

/// A set of final HTTP status codes, 200...599.
package struct StatusSet: Hashable, Sendable, CustomStringConvertible {
    package let ranges: [ClosedRange<Int>]

    package var description: String {
        let words = ranges.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }
        return words.count == 1 ? words[0] : "[\(words.joined(separator: ", "))]"
    }

    package func contains(_ status: Int) -> Bool {
        for range in ranges where range.contains(status) { return true }
        return false
    }
}
