package import Primitives

/// How many of the living nodes must judge a backend down before it is down for all.
package enum Quorum: Hashable, Sendable {
    case majority
    case any
    case count(Int)

    /// Votes needed among `live` nodes: at least 1, at most all of them.
    package func needed(live: Int) -> Int {
        let all = max(1, live)
        switch self {
        case .majority: return all / 2 + 1
        case .any: return 1
        case .count(let n): return min(max(1, n), all)
        }
    }
}

/// How the backends of one service are watched. Numbers out of range are moved to their nearest bound, so that no
/// setting makes a node spin or divide by nothing; the configuration has told its author before.
package struct HealthSettings: Hashable, Sendable {
    /// `false`: no probes, traffic is the only evidence.
    package var active = true
    package var probe = ProbeKind.http(HTTPProbe())
    /// Time between probes while all is well.
    package var interval = TimeSpan.seconds(30)
    /// The same after a failure, until `successes` probes in a row have succeeded.
    package var warningInterval = TimeSpan.seconds(10)
    /// The same while the backend is down.
    package var downInterval = TimeSpan.seconds(5)
    /// Longest time that a probe may take, connecting included.
    package var timeout = TimeSpan.seconds(5)
    /// Failures in a row, of probes or of requests, that make this node judge a backend down.
    package var failures = 3
    /// Successful probes in a row that make it judge the backend up again.
    package var successes = 3
    package var quorum = Quorum.majority
    /// How many of the service's backends, in percent, may be down by the evidence of traffic alone.
    package var maxEjected = 50
    /// How long a verdict from traffic stands while probes succeed; then the backend is tried again.
    package var cooldown = TimeSpan.seconds(30)
    /// The longest that a backend which fails again and again is kept out at a time.
    package var cooldownMax = TimeSpan.seconds(300)

    package init() {}

    /// Shortest time between two probes of one backend by one node, and shortest cooldown, whatever the settings or the
    /// news say: often enough for any use, too seldom to be a load.
    package static let probeGapMin = TimeSpan.milliseconds(50)

    /// Which check is made of a backend: verdicts and streaks of another one say nothing of it. The same on every node.
    package var check: UInt64 { active ? stableHash("\(probe)") : 0 }
}

/// What a probe is.
package enum ProbeKind: Hashable, Sendable, CustomStringConvertible {
    /// A connection that is accepted is enough.
    case tcp
    case http(HTTPProbe)

    /// Everything that makes it this check and no other, the same on every node and in every release.
    package var description: String {
        switch self {
        case .tcp: "tcp"
        case .http(let http):
            "http \(http.method) \(http.path) \(http.headers.map { "\($0.name): \($0.value)" }) \(http.expect) "
                + "\(http.expectBody ?? "")"
        }
    }
}

package struct HTTPProbe: Hashable, Sendable {
    package struct Field: Hashable, Sendable {
        package var name: String
        package var value: String

        package init(name: String, value: String) {
            self.name = name
            self.value = value
        }
    }

    package var method = "GET"
    package var path = "/health"
    /// Sent besides Host, User-Agent, Accept and Connection, or in the place of one of the first three.
    package var headers: [Field] = []
    /// Statuses that a healthy backend answers with.
    package var expect: [ClosedRange<Int>] = [200...200]
    /// Its answer's body holds this text somewhere; `nil`: whatever it holds.
    package var expectBody: String?

    package init() {}

    package func expects(status: Int) -> Bool { expect.contains { $0.contains(status) } }
}

/// A service as far as health is concerned. Each URL counts once.
package struct WatchedService: Hashable, Sendable {
    package var name: String
    package var settings: HealthSettings
    package var urls: [String]

    package init(name: String, settings: HealthSettings, urls: [String]) {
        self.name = name
        self.settings = settings
        self.urls = urls
    }
}
