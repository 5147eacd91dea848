/// Why a command or transaction got no answer that can be used.
package enum RedisFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// There is no connection; nothing was sent.
    case notConnected
    /// The connection was lost before the answer: it may have been executed, or may still be.
    case lost(String)
    /// The same, before the server had said anything: it may have waited for TLS.
    case unanswered(String)
    /// The same, because another server is in this one's place: the connection goes there.
    case replaced(String)
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
    /// What stands between us and a sentinel, or what it said.
    indirect case sentinel(RedisFailure, at: String)

    package var description: String {
        switch self {
        case .notConnected: "not connected"
        case .lost(let reason), .unanswered(let reason), .replaced(let reason), .silent(let reason):
            "connection lost: \(reason)"
        case .late(let reason): reason
        case .refused(let text): "refused: \(text)"
        case .moved(let text): "the slot has moved: \(text)"
        case .malformed(let text): "malformed answer: \(text)"
        case .tooLarge(let text): "an answer that is too large: \(text)"
        case .untrusted(let text): text
        case .sentinel(.lost(let reason), let place): "sentinel \(place): \(reason)"
        case .sentinel(let failure, let place): "sentinel \(place): \(failure)"
        }
    }

    /// The same, with the name of the server where there are several.
    package func at(_ server: String) -> RedisFailure {
        guard !server.isEmpty else { return self }
        switch self {
        case .notConnected, .replaced, .sentinel: return self
        case .lost(let reason): return .lost("\(server): \(reason)")
        case .unanswered(let reason): return .unanswered("\(server): \(reason)")
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
        case .notConnected, .lost, .unanswered, .replaced: .unreachable
        case .silent, .late: .silent
        case .refused(let text): RedisCause(errorText: text)
        case .moved: .moved
        case .malformed, .tooLarge: .malformed
        case .untrusted: .untrusted
        case .sentinel(let failure, _): failure.cause
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
        switch self {
        case .refused(let text):
            if RedisCause.knowsNoPassword(text) {
                return "Redis has no password: take it out of rateLimit.redisURL, or give Redis one (requirepass)"
            }
            guard cause == .permission, let right = MissingRight(text) else { return cause.remedy }
            return "ACL SETUSER \(user ?? "NAME") \(right.rule) grants it; docs/redis.md lists all that Sluice needs"
        case .unanswered: return "\(cause.remedy), or its port speaks TLS: write rediss in the place of redis there"
        case .replaced: return "none is needed: the connection goes there"
        case .untrusted(let text): return CertificateAlert(text)?.remedy ?? cause.remedy
        case .sentinel(let failure, _): return failure.remedyAtSentinel
        case .notConnected, .lost, .silent, .late, .moved, .malformed, .tooLarge: return cause.remedy
        }
    }

    /// What can be done where it is a sentinel that fails us so.
    private var remedyAtSentinel: String {
        switch self {
        case .refused(let text) where RedisCause.knowsNoPassword(text):
            "the sentinels have no password: take sentinelPassword out of rateLimit.redisURL"
        case .refused where cause == .login:
            "it is the sentinel that refuses: set sentinelPassword, and sentinelUser where it has users, in "
                + "rateLimit.redisURL, percent-encoded"
        case .refused(let text) where cause == .permission:
            "ACL SETUSER NAME \(MissingRight(text)?.ruleAtSentinel ?? "…") grants it, on each sentinel; docs/redis.md lists all "
                + "that Sluice needs there"
        case .unanswered: "see whether the sentinels run, or their ports speak TLS: write rediss+sentinel://"
        case .notConnected, .lost:
            "see whether the sentinels run and know the primary by that name, and whether rateLimit.redisURL leads to them"
        case .silent: "the sentinel or the network hangs: look at its machine"
        case .refused, .late, .moved, .malformed, .replaced, .tooLarge, .untrusted, .sentinel: remedy
        }
    }

    var isOfSentinel: Bool { if case .sentinel = self { true } else { false } }

    /// Whether what a user of Redis may not do is publish, or listen to what is published.
    package var isOfNews: Bool {
        guard case .refused(let text) = self, cause == .permission else { return false }
        return switch MissingRight(text) {
        case .channel, .command("publish"), .command("subscribe"): true
        case .command, .key, nil: false
        }
    }
}

/// By which a server of TLS refuses our certificate (RFC 8446 §6.2), in OpenSSL's words.
private enum CertificateAlert: String, CaseIterable {
    case required = "alert certificate required"
    case unknownAuthority = "alert unknown ca"
    case expired = "alert certificate expired"
    case revoked = "alert certificate revoked"
    case unknown = "alert certificate unknown"
    case unsupported = "alert unsupported certificate"
    case bad = "alert bad certificate"
    case denied = "alert access denied"

    init?(_ text: String) {
        guard let found = Self.allCases.first(where: { text.contains($0.rawValue) }) else { return nil }
        self = found
    }

    var remedy: String {
        switch self {
        case .required:
            "the server wants a certificate of this node: name one by ?cert=FILE&key=FILE in rateLimit.redisURL"
        case .unknownAuthority:
            "the server does not trust who signed this node's certificate: take one of its authority for ?cert=FILE&key=FILE"
        case .expired: "this node's certificate has expired: renew the files of ?cert= and ?key=, and reload"
        case .revoked, .unknown, .unsupported, .bad, .denied:
            "the server refuses this node's certificate: take another for ?cert=FILE&key=FILE in rateLimit.redisURL"
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

    /// The same at a sentinel, which has no keys.
    var ruleAtSentinel: String {
        switch self {
        case .channel, .key: "'&\(SentinelView.switched)' '&\(SentinelView.promoted)'"
        case .command: rule
        }
    }
}
