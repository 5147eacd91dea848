/// Why a command or transaction got no answer that can be used.
package enum RedisFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// There is no connection; nothing was sent.
    case notConnected
    /// The connection was lost before the answer: it may have been executed, or may still be.
    case lost(String)
    /// The server answered with an error, such as `LOADING`, `READONLY`, `OOM` or `NOAUTH`. A transaction that was
    /// refused was not executed.
    case refused(String)
    /// The answer is not of the shape that the command has.
    case malformed(String)

    package var description: String {
        switch self {
        case .notConnected: "not connected"
        case .lost(let reason): "connection lost: \(reason)"
        case .refused(let text): "refused: \(text)"
        case .malformed(let text): "malformed answer: \(text)"
        }
    }
}

/// What kind of error the server's first word names.
package enum RedisErrorCode: Equatable, Sendable {
    /// The server is reading its data from disk.
    case loading
    /// It is a replica: the name or address does not lead to the master any more.
    case readOnly
    /// A replica without its master.
    case masterDown
    case outOfMemory
    /// The password is missing or wrong, or the user may not do this.
    case notAllowed
    /// Persistence fails and the server takes no writes (`MISCONF`), or a script holds it (`BUSY`), or too few replicas
    /// follow (`NOREPLICAS`).
    case unavailable
    /// The key holds something else.
    case wrongType
    case other

    /// - Parameter text: what the server said, without the leading `-`.
    package init(_ text: String) {
        switch text.prefix(while: { $0 != " " }) {
        case "LOADING": self = .loading
        case "READONLY": self = .readOnly
        case "MASTERDOWN": self = .masterDown
        case "OOM": self = .outOfMemory
        case "NOAUTH", "WRONGPASS", "NOPERM": self = .notAllowed
        case "MISCONF", "BUSY", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN": self = .unavailable
        case "WRONGTYPE": self = .wrongType
        default: self = .other
        }
    }

    /// Whether another connection may lead to a server that does not say this.
    var asksForAnotherConnection: Bool {
        switch self {
        case .readOnly, .masterDown, .notAllowed: true
        case .loading, .outOfMemory, .unavailable, .wrongType, .other: false
        }
    }
}
