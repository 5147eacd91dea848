import RateLimiting

/// What workers tell the control loop.
enum ControlMessage: Sendable {
    case trafficFailed(service: Int, backend: Int, BackendFault)
    case trafficRecovered(service: Int, backend: Int)
    case limiter(worker: Int, LimiterEvent)
    case acceptPaused(worker: Int, reason: String)
    case drained(worker: Int)
}
