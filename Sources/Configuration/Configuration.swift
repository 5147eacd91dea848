// What an operator can say to a node, as checked values. A `Configuration` that exists is valid: whoever holds one
// never asks again whether a port is a number or a service has a backend. Property names are the YAML keys.
//
// Rejected: `Codable`. It stops at the first error and knows no line numbers, and an unknown key passes silently.

package import Primitives

/// One node's whole configuration: immutable, and equal when it means the same.
package struct Configuration: Hashable, Sendable {
    package let gateway: Gateway
    /// In the order of the file; never empty, with unique names and paths.
    package let services: [Service]
    /// `nil` when the section is absent: no limit, and no Redis.
    package let rateLimit: RateLimit?
    /// `nil` when the section is absent: nobody is asked who they are.
    package let auth: Auth?
    /// `nil` when the section is absent: requests are not traced.
    package let tracing: Tracing?
    /// Whether the cluster's configuration stands above this one.
    package let config: Follow
}

extension Configuration {
    package struct Follow: Hashable, Sendable {
        package let from: Place

        package enum Place: String, CaseIterable, Hashable, Sendable {
            /// The node's own file alone.
            case file
            /// What was pushed to the cluster; its own file says what is the node's own, and what counts until then.
            case redis
        }
    }

    /// What concerns the node itself: its listeners, its limits, its logs.
    package struct Gateway: Hashable, Sendable {
        package let port: ListenAddress
        /// The default of every service's `timeouts.response`; `nil`: no limit.
        package let timeout: TimeSpan?
        /// Where metrics and the JSON API listen; `nil`: nowhere.
        package let admin: ListenAddress?
        /// Who sends it may write through the admin listener; `nil`: nobody.
        package let adminToken: String?
        package let workers: Workers
        package let accessLog: AccessLog
        /// `logFormat` where the access log has none of its own.
        package let accessLogFormat: LogFormat
        /// What a line of it holds; empty: what it holds by itself.
        package let accessLogFields: [AccessField]
        /// `nil`: requests have no names.
        package let requestID: RequestID?
        package let logFormat: LogFormat
        package let logLevel: LogLevel
        /// The name that this gateway gives itself in `Via` (RFC 9110 §7.6.3).
        package let via: String
        /// Whose word on the client is believed: the header below, and the PROXY protocol.
        package let trustedProxies: [CIDR]
        /// The header of theirs that is believed, and continued to backends.
        package let forwardedHeader: ForwardedHeader
        /// Whether a connection of theirs begins with a PROXY header.
        package let proxyProtocol: Bool
        /// How often a node announces itself; it is gone after three missed beats.
        package let heartbeat: TimeSpan
        package let drain: Drain
        /// Whether a changed file is read again without being told.
        package let watchConfig: Bool
        package let limits: Limits
    }

    package enum Workers: Hashable, Sendable {
        /// One a processor core that the process may use.
        case auto
        case count(Int)
    }

    /// Only one of the two: a proxy that continues the one passes the other on as the client wrote it.
    package enum ForwardedHeader: String, CaseIterable, Hashable, Sendable {
        case xForwardedFor = "x-forwarded-for"
        /// RFC 7239.
        case forwarded
    }

    /// The raw values are also swift-log's names of its levels.
    package enum LogLevel: String, CaseIterable, Hashable, Sendable {
        case trace, debug, info, notice, warning, error
    }

    /// How a node leaves: `delay` with readiness off and everything served, then up to `timeout` for work in flight.
    package struct Drain: Hashable, Sendable {
        package let delay: TimeSpan
        package let timeout: TimeSpan
    }

    /// What one client or one request may cost; `nil`: no limit (`0` in the file). `Limits.swift` has the reasons.
    package struct Limits: Hashable, Sendable {
        package let requestLineBytes: ByteCount?
        /// All field lines together; beyond it the answer is 431.
        package let headerBytes: ByteCount?
        package let headerCount: Int?
        /// Beyond it the answer is 413. What counts for a request is its service's `limits.bodyBytes`.
        package let bodyBytes: ByteCount?
        /// From the first byte of a request to the end of its head; then 408.
        package let headerTimeout: TimeSpan?
        /// Without a byte of the body; then 408.
        package let bodyTimeout: TimeSpan?
        /// Bytes a second that a client has to send of a body, and to read of an answer, after the grace.
        package let minBodyRate: ByteCount?
        package let minReadRate: ByteCount?
        package let rateGrace: TimeSpan
        /// After so long a connection's next answer is its last.
        package let keepAliveTimeout: TimeSpan?
        /// Between requests on a kept connection.
        package let idleTimeout: TimeSpan?
        package let requestsPerConnection: Int?
        package let connections: Int?
        package let connectionsPerClient: Int?
    }

    /// How requests are limited, and where the nodes' shared state lives.
    package struct RateLimit: Hashable, Sendable {
        /// Admissions of one client in any second, 1...1,000,000,000; `nil`: nothing is limited, and the section only
        /// names the Redis.
        package let requestsPerSecond: Int?
        /// The token bucket's size when there is no Redis. `requestsPerSecond` where the file does not say.
        package let burstSize: Int?
        /// `nil`: this node is complete by itself.
        package let redisURL: RedisURL?
        /// The longest wait for Redis before `onRedisLoss` applies.
        package let timeout: TimeSpan
        package let onRedisLoss: RedisLossRule
        /// A file for what was admitted, and when by Redis's clock; `nil`: nobody writes it down.
        package let decisionLog: String?
        /// Which answers carry `RateLimit-Policy` and `RateLimit`.
        package let headers: RateLimitHeaders
        /// Whether they carry `X-RateLimit-*` too.
        package let legacyHeaders: Bool
        /// Beside the one of `requestsPerSecond`, in the order of the file.
        package let policies: [Policy]
    }

    package enum RateLimitHeaders: String, CaseIterable, Hashable, Sendable {
        case refused
        case all
    }

    /// So many requests of a subject in a window, or at once.
    package struct Policy: Hashable, Sendable {
        package let name: String
        /// 1...1,000,000,000.
        package let limit: Int
        /// 100 ms to 30 days. Where requests at once are counted: how long one counts whose node is gone.
        package let window: TimeSpan
        /// Whether requests are counted that run at once.
        package let concurrent: Bool
        package let key: PolicyKey
        /// Other limits for callers of these tiers, in the order of the file.
        package let tiers: [TierLimit]
        package let scope: PolicyScope
        package let mode: PolicyMode
        package let cost: PolicyCost
        package let precision: PolicyPrecision
        /// Whether the node refuses floods before Redis is asked.
        package let localFirst: Bool
    }

    /// How many slots a request takes: the most of what its method and its path say, else `base`; 0 for requests that
    /// are not counted.
    package struct PolicyCost: Hashable, Sendable {
        package var base = 1
        package var methods: [String: Int] = [:]
        /// By prefixes of the client's path.
        package var paths: [String: Int] = [:]

        package init(base: Int = 1, methods: [String: Int] = [:], paths: [String: Int] = [:]) {
            self.base = base
            self.methods = methods
            self.paths = paths
        }

        package var most: Int { max(base, methods.values.max() ?? 0, paths.values.max() ?? 0) }
    }

    package enum PolicyPrecision: String, CaseIterable, Hashable, Sendable {
        /// An entry in Redis for each slot taken.
        case exact
        /// A count for each hundredth of the window.
        case buckets
    }

    package struct TierLimit: Hashable, Sendable {
        package let tier: String
        package let limit: Int
    }

    package enum PolicyKey: Hashable, Sendable {
        case ip, service, global
        /// Who a verified credential says that the caller is; the address of who has shown none.
        case user, org, apiKey
        /// A header's name, in lower case.
        case header(String)
    }

    /// What a policy covers: requests that are in both.
    package struct PolicyScope: Hashable, Sendable {
        /// Names of services; empty for all.
        package let services: [String]
        /// Prefixes of the client's path; empty for all.
        package let paths: [String]

        package init(services: [String], paths: [String]) {
            self.services = services
            self.paths = paths
        }
    }

    package enum PolicyMode: String, CaseIterable, Hashable, Sendable {
        case enforce
        /// Counts and reports, and never refuses.
        case shadow
    }

    package enum RedisLossRule: String, CaseIterable, Hashable, Sendable {
        /// Each node admits its share of the limit by its own memory.
        case share
        /// Everything passes.
        case open
        /// Nothing passes.
        case closed
    }
}
