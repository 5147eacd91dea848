package import Primitives

/// One rule: so many requests of a subject in a window.
package struct Policy: Equatable, Sendable {
    /// Part of the Redis key and of the response fields.
    package let name: String
    /// Requests a window.
    package let limit: Int
    package let window: TimeSpan
    /// The size of the token bucket that stands in for the window when there is no Redis.
    package let burst: Int
    package let key: PolicyKey
    package let mode: PolicyMode
    package let form: PolicyForm
    /// The most that a request may cost, 1...`costMax`.
    package let costMax: Int
    /// Whether floods are refused by the node before Redis is asked.
    package let isLocalFirst: Bool
    /// The callers whom it counts; `nil`: all that no policy of their own counts under this name.
    package let tier: String?

    /// The most that one request can cost: as many entries as a transaction holds.
    package static let costMax = WindowTransaction.entriesMax

    /// - Parameters:
    ///   - name: letters, digits, `-`, `_` and `.`.
    ///   - limit: 1...10^15, which scores and ranks in Redis can hold.
    ///   - window: at least a millisecond.
    ///   - burst: at least 1.
    package init(
        name: String, limit: Int, window: TimeSpan, burst: Int, key: PolicyKey = .ip, mode: PolicyMode = .enforce,
        form: PolicyForm = .window, costMax: Int = 1, isLocalFirst: Bool = false, tier: String? = nil
    ) {
        self.name = name
        self.limit = min(max(1, limit), 1_000_000_000_000_000)
        self.window = max(window, .milliseconds(1))
        self.burst = max(1, burst)
        self.key = key
        self.mode = mode
        self.form = form
        self.costMax = min(max(1, costMax), Self.costMax, self.limit)
        self.isLocalFirst = isLocalFirst
        self.tier = tier
    }

    /// Whether it counts the same requests of the same subjects as another, whatever it makes of the count.
    package func isSameCount(as other: Policy) -> Bool {
        name == other.name && key == other.key && window == other.window && tier == other.tier
    }

    /// What comes before the subject in a Redis key. The limit is part of it: two limits on one key would trim each
    /// other's entries.
    package var keyPrefix: String {
        switch form {
        case .window: "rate_limit:\(name):\(limit)/\(window):"
        // Counts and single entries in one set would be taken for each other.
        case .buckets: "rate_limit:\(name):\(limit)/\(window)/buckets:"
        case .leases: "rate_limit:\(name):\(limit)/concurrent:"
        }
    }

    /// Whether each request is one entry of an exact window.
    var isPlain: Bool { form == .window && costMax == 1 && !isLocalFirst }

    /// The average time from one slot of a full window that leaves to the next. Endless where nobody waits for that: of
    /// requests at once nobody knows when one ends, and what refuses nobody must not keep anybody waiting.
    var pace: TimeSpan {
        form == .leases || mode == .shadow ? .max : .nanoseconds(max(1, window.nanoseconds / Int64(clamping: limit)))
    }

    /// Whoever waits so long finds everything gone that is in the window now, whatever the clocks' errors.
    var wholeWait: TimeSpan { window + .nanoseconds(window.nanoseconds / 50) + .milliseconds(10) }
}

/// What a policy counts by.
package enum PolicyKey: Equatable, Sendable {
    case ip, service, global
    /// Who a verified credential says that the caller is; the address of who has shown none.
    case user, org, apiKey
    /// The value of a header, by its name in lower case; the address of who does not send it.
    case header(String)
}

extension PolicyKey: CustomStringConvertible {
    /// As the configuration writes it.
    package var description: String {
        switch self {
        case .ip: "ip"
        case .service: "service"
        case .global: "global"
        case .user: "user"
        case .org: "org"
        case .apiKey: "apiKey"
        case .header(let name): "header:\(name)"
        }
    }
}

/// How a window is kept in Redis.
package enum PolicyForm: Sendable {
    /// An entry for each slot taken.
    case window
    /// A count for each hundredth of the window.
    case buckets
    /// An entry for each request that runs: the limit is how many at once, the window how long a lease lasts unless it is
    /// renewed.
    case leases
}

package enum PolicyMode: Sendable {
    case enforce
    /// Counts and reports, and never refuses.
    case shadow
}

/// What a limit says of one request.
package enum Verdict: Equatable, Sendable {
    /// `remaining`: how many more would pass now; `nil` where only another question to Redis could tell.
    case admit(remaining: Int?)
    /// No request of the subject passes before this time has gone by; never less than the truth.
    case refuse(retryAfter: TimeSpan)
}

/// Who decided a request: for metrics.
package enum VerdictSource: Int, CaseIterable, Sendable {
    /// The window in Redis.
    case window
    /// The memory that the window is full.
    case fullWindow
    /// The loss rule, each with its own name.
    case share, open, closed
    /// The token bucket of a node without Redis.
    case bucket
}

/// What becomes of requests while Redis cannot be asked.
package enum LossRule: Sendable {
    /// This node admits its share of the limit: the limit divided by the live nodes, rounded up.
    case share
    case open
    case closed
}
