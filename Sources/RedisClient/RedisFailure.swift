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
    /// The answer is not of the shape that the command has.
    case malformed(String)
    /// No trust can be put in whoever answered: a certificate that does not hold, a replica in the primary's place.
    case untrusted(String)

    package var description: String {
        switch self {
        case .notConnected: "not connected"
        case .lost(let reason), .silent(let reason): "connection lost: \(reason)"
        case .late(let reason): reason
        case .refused(let text): "refused: \(text)"
        case .malformed(let text): "malformed answer: \(text)"
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
        case .malformed(let text): return .malformed("\(text) (\(server))")
        case .untrusted(let text): return .untrusted("\(server): \(text)")
        }
    }

    package var cause: RedisCause {
        switch self {
        case .notConnected, .lost: .unreachable
        case .silent, .late: .silent
        case .refused(let text): RedisCause(errorText: text)
        case .malformed: .malformed
        case .untrusted: .untrusted
        }
    }
}
