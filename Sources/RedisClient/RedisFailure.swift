/// Why a command or transaction got no answer that can be used.
package enum RedisFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// There is no connection; nothing was sent.
    case notConnected
    /// The connection was lost before the answer: it may have been executed, or may still be.
    case lost(String)
    /// The connection was given up because nothing came for too long: the same holds.
    case silent(String)
    /// Answers came later than their askers could wait.
    case late(String)
    /// The server answered with an error, such as `LOADING`, `READONLY`, `OOM` or `NOAUTH`. A transaction that was
    /// refused was not executed.
    case refused(String)
    /// What was asked for lies on another server of the cluster by now, and the connection goes there.
    case moved(String)
    /// The answer is not of the shape that the command has.
    case malformed(String)
    /// The answer begins as it should, and is longer than any that a cluster of ours gives rise to.
    case tooLarge(String)
    /// No trust can be put in whoever answered: a certificate that does not hold, a replica in the primary's place.
    case untrusted(String)

    package var description: String {
        switch self {
        case .notConnected: "not connected"
        case .lost(let reason), .silent(let reason): "connection lost: \(reason)"
        case .late(let reason): reason
        case .refused(let text): "refused: \(text)"
        case .moved(let text): "the slot has moved: \(text)"
        case .malformed(let text): "malformed answer: \(text)"
        case .tooLarge(let text): "an answer that is too large: \(text)"
        case .untrusted(let text): text
        }
    }

    /// The same, with the name of the server where there are several.
    package func at(_ server: String) -> RedisFailure {
        guard !server.isEmpty else { return self }
        switch self {
        case .notConnected: return self
        case .lost(let reason): return .lost("\(server): \(reason)")
        case .silent(let reason): return .silent("\(server): \(reason)")
        case .late(let reason): return .late("\(reason), from \(server)")
        // The error's own first word names the cause.
        case .refused(let text): return .refused("\(text) (\(server))")
        case .moved(let text): return .moved("\(text) (\(server))")
        case .malformed(let text): return .malformed("\(text) (\(server))")
        case .tooLarge(let text): return .tooLarge("\(text) (\(server))")
        case .untrusted(let text): return .untrusted("\(server): \(text)")
        }
    }

    package var cause: RedisCause {
        switch self {
        case .notConnected, .lost: .unreachable
        case .silent, .late: .silent
        case .refused(let text): RedisCause(errorText: text)
        case .moved: .moved
        case .malformed, .tooLarge: .malformed
        case .untrusted: .untrusted
        }
    }

    /// What an operator can do about it.
    package var remedy: String { remedy(user: nil) }

    /// The same, with the command that grants what a user of Redis may not do.
    ///
    /// - Parameters:
    ///   - user: who we are to Redis; `nil` where nobody knows.
    ///   - onCluster: whether the configuration says that Redis is a cluster.
    package func remedy(user: String?, onCluster: Bool = false) -> String {
        if cause == .moved, onCluster { return "none is needed: the slot has moved, and the connection follows it" }
        guard case .refused(let text) = self, cause == .permission, let right = MissingRight(text) else {
            return cause.remedy
        }
        return "ACL SETUSER \(user ?? "NAME") \(right.rule) grants it; docs/redis.md lists all that Sluice needs"
    }

    /// Whether what a user of Redis may not do is publish, or listen to what is published.
    package var isOfNews: Bool {
        guard case .refused(let text) = self, cause == .permission else { return false }
        return switch MissingRight(text) {
        case .channel, .command("publish"), .command("subscribe"): true
        case .command, .key, nil: false
        }
    }
}

/// What `NOPERM` says that a user may not do: its words differ from one version of Redis to the next, what they name
/// does not.
private enum MissingRight: Equatable {
    case channel
    case key
    case command(String)

    init?(_ text: String) {
        if text.contains("channel") {
            self = .channel
        } else if let words = text.firstRange(of: "run the '")?.upperBound {
            self = .command(String(text[words...].prefix { $0 != "'" }))
        } else if text.contains("key") {
            self = .key
        } else {
            return nil
        }
    }

    /// As `ACL SETUSER` has it.
    var rule: String {
        switch self {
        case .channel: "'&sluice:*'"
        case .key: "'~rate_limit:*' '~sluice:*' '~{sluice}:*'"
        case .command(let name): "+\(name)"
        }
    }
}
