package import LinuxIO
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

    /// - Parameters:
    ///   - name: letters, digits, `-`, `_` and `.`.
    ///   - limit: 1...10^15, which scores and ranks in Redis can hold.
    ///   - window: at least a millisecond.
    ///   - burst: at least 1.
    package init(name: String, limit: Int, window: TimeSpan, burst: Int) {
        self.name = name
        self.limit = min(max(1, limit), 1_000_000_000_000_000)
        self.window = max(window, .milliseconds(1))
        self.burst = max(1, burst)
    }

    /// What comes before the subject in a Redis key. The limit is part of it: two limits on one key would trim each
    /// other's entries.
    package var keyPrefix: String { "rate_limit:\(name):\(limit)/\(window):" }
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

/// The response fields of a limit (IETF draft-ietf-httpapi-ratelimit-headers).
package struct RateLimitFields: Sendable {
    private let policyField: [UInt8]
    private let limitField: [UInt8]

    package init(_ policy: Policy) {
        let seconds = max(1, Self.wholeSeconds(policy.window))
        policyField = Array("RateLimit-Policy: \"\(policy.name)\";q=\(policy.limit);w=\(seconds)\r\n".utf8)
        limitField = Array("RateLimit: \"\(policy.name)\";r=0;t=".utf8)
    }

    private static func wholeSeconds(_ span: TimeSpan) -> Int {
        Int(saturatingAdd(max(span, .zero).nanoseconds, 999_999_999) / 1_000_000_000)
    }

    /// Writes the fields of a refusal. Seconds are rounded up: a client that waits as told must not come too early.
    package func write(retryAfter: TimeSpan, to output: inout ByteBuffer) {
        let seconds = max(1, Self.wholeSeconds(retryAfter))
        output.append("Retry-After: ")
        output.append(decimal: seconds)
        output.append("\r\n")
        output.append(policyField.span)
        output.append(limitField.span)
        output.append(decimal: seconds)
        output.append("\r\n")
    }
}
