import RateLimiting

/// What others tell the control loop.
enum ControlMessage: Sendable {
    case trafficFailed(service: Int, backend: Int, BackendFault)
    case trafficRecovered(service: Int, backend: Int)
    case limiter(worker: Int, LimiterEvent)
    case acceptPaused(worker: Int, reason: String)
    case drained(worker: Int)
    /// The node is asked to end in an orderly way.
    case drain
    case stop
}
