/// Why a probe or a request failed, on the backend's side.
package enum HealthFailure: Hashable, Sendable, CustomStringConvertible {
    /// An answer with a status that was not expected of a probe, or a 5xx of a request.
    case status(Int)
    /// The connection could not be made or broke; the text is the system's: `connection refused`.
    case connection(String)
    case timeout
    /// An answer that is no HTTP.
    case malformedAnswer
    /// An answer to a probe without the text that was expected in it.
    case unexpectedBody

    package var description: String {
        switch self {
        case .status(let status): "status \(status)"
        case .connection(let reason): reason
        case .timeout: "timeout"
        case .malformedAnswer: "malformed answer"
        case .unexpectedBody: "an answer without the expected text"
        }
    }
}

/// How a probe ended.
package enum ProbeResult: Hashable, Sendable {
    case succeeded
    case failed(HealthFailure)
}
