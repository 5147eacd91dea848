/// Where a Redis server is and how to log in.
package struct RedisEndpoint: Equatable, Sendable {
    package enum Location: Equatable, Sendable {
        case tcp(host: String, port: UInt16)
        case unix(path: String)
    }

    package var location: Location
    package var username: String?
    package var password: String?
    package var database: Int

    package init(_ location: Location, username: String? = nil, password: String? = nil, database: Int = 0) {
        self.location = location
        self.username = username
        self.password = password
        self.database = database
    }
}

/// Why a command got no answer that can be used.
package enum RedisFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// There is no connection.
    case notConnected
    /// The connection was lost before the answer.
    case lost(String)
    /// The server answered with an error, such as `LOADING`, `READONLY`, `OOM` or `NOAUTH`.
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
