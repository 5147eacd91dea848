import RateLimiting

/// What others tell the control loop.
enum ControlMessage: Sendable {
    case trafficFailed(service: Int, backend: Int, BackendFault)
    case trafficRecovered(service: Int, backend: Int)
    /// A request of this worker would try a backend whose breaker is half-open.
    case trialWanted(service: Int, backend: Int, worker: Int)
    case trialEnded(service: Int, backend: Int, succeeded: Bool, status: Int)
    case limiter(worker: Int, LimiterEvent)
    /// A worker lacks places or descriptors for connections; `connectionsSuffice` follows when it has not for some
    /// seconds.
    case connectionsScarce(worker: Int, reason: String)
    case connectionsSuffice(worker: Int)
    /// Others may have what this worker lacks.
    case makeRoom(worker: Int, Scarcity)
    /// Something that operators should know of, at most once in some seconds.
    case note(String, [String: String])
    case drained(worker: Int)
    /// The node is asked to end in an orderly way.
    case drain
    case stop
}
