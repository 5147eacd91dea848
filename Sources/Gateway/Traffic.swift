// What the requests of a node come to, counted where they end: a few plain additions a request, in the worker's own lane.
// Names are labels of metrics, so there are only as many as the configuration has services and backends: nothing that a
// client chooses makes a new one.

import LinuxIO
package import Primitives
import Synchronization

/// How a request ended. The names are labels of metrics, and stable.
package enum RequestOutcome: Int, CaseIterable, Sendable {
    /// A backend's answer, whole.
    case proxied
    /// A tunnel that has ended.
    case tunneled
    /// The gateway's own answer to OPTIONS or TRACE, or a redirect.
    case answered
    /// The service is under maintenance, whatever the status that says so.
    case maintenance
    case limited
    /// No service has the path.
    case notFound
    /// Refused for what it is: malformed, too large, too slow, not allowed.
    case rejected
    /// No backend, or no place at one.
    case unavailable
    case backendFailed
    case backendTimeout
    /// The backend broke off in the middle of its answer.
    case broken
    /// This node has ended before the answer was whole.
    case cutOff
    /// The client left before its answer was complete.
    case aborted

    package var name: String {
        switch self {
        case .proxied: "proxied"
        case .tunneled: "tunneled"
        case .answered: "answered"
        case .maintenance: "maintenance"
        case .limited: "limited"
        case .notFound: "not_found"
        case .rejected: "rejected"
        case .unavailable: "unavailable"
        case .backendFailed: "backend_failed"
        case .backendTimeout: "backend_timeout"
        case .broken: "broken"
        case .cutOff: "cut_off"
        case .aborted: "aborted"
        }
    }

    /// Whether somebody did not get what should have been there.
    func isError(class codeClass: Int) -> Bool {
        switch self {
        case .broken, .cutOff: true
        case .maintenance: false
        case .proxied, .tunneled, .answered, .limited, .notFound, .rejected, .unavailable, .backendFailed,
            .backendTimeout, .aborted:
            codeClass == 5
        }
    }
}

/// One service's traffic, or that of requests without one.
package final class ServiceTraffic: Sendable {
    private let counters: Counters
    var bytes: Int { counters.bytes }

    package static var classMax: Int { 5 }
    private static var outcomesMax: Int { 16 }
    private static var received: Int { (classMax + 1) * outcomesMax }
    private static var sent: Int { received + 1 }
    private static var retries: Int { received + 2 }
    private static var gateway: Int { received + 8 }
    private static var backend: Int { gateway + Counters.histogramWidth }

    init(workers: Int) {
        counters = Counters(width: Self.backend + Counters.histogramWidth, lanes: workers)
    }

    /// Counts an exchange that has ended.
    func count(_ client: ClientConnection, worker: Int, at now: MonotonicTime) {
        let status = client.status
        let outcome = client.outcome
        let codeClass = min(max(0, status / 100), Self.classMax)
        counters.add(1, to: codeClass * Self.outcomesMax + outcome.rawValue, lane: worker)
        if client.requestBytes > 0 { counters.add(client.requestBytes, to: Self.received, lane: worker) }
        counters.add(client.responseBytes, to: Self.sent, lane: worker)
        // How long a tunnel lives is its clients' business.
        if outcome != .tunneled { counters.record(now - client.startedAt, at: Self.gateway, lane: worker) }
    }

    /// A backend has begun its answer.
    @inline(__always)
    func backendAnswered(after span: TimeSpan, worker: Int) {
        counters.record(span, at: Self.backend, lane: worker)
    }

    func retried(worker: Int) { counters.add(1, to: Self.retries, lane: worker) }

    package func requests(class codeClass: Int, _ outcome: RequestOutcome) -> Int {
        counters.total(codeClass * Self.outcomesMax + outcome.rawValue)
    }
    package var receivedBytes: Int { counters.total(Self.received) }
    package var sentBytes: Int { counters.total(Self.sent) }
    package var retryCount: Int { counters.total(Self.retries) }
    /// From a request's head to the end of its answer.
    package var durations: DurationSummary { counters.summary(at: Self.gateway) }
    /// From sending a request to the head of its backend's answer.
    package var backendDurations: DurationSummary { counters.summary(at: Self.backend) }
}

extension ClientConnection {
    /// How the exchange that has ended did so.
    @inline(__always)
    var outcome: RequestOutcome {
        if status == 499 { return .aborted }
        guard responseStarted else { return ownOutcome }
        if status == 101 { return .tunneled }
        return responseComplete ? .proxied : worker.isCuttingOff ? .cutOff : .broken
    }

    /// Of an answer of the gateway's own.
    private var ownOutcome: RequestOutcome {
        if worker.isCuttingOff { return .cutOff }
        if limiterOutcome == .refused { return .limited }
        // Its status is the operator's choice and says nothing of backends.
        if let transformed, transformed.isUnderMaintenance { return .maintenance }
        switch status {
        case 200..<400: return .answered
        case 404 where lane == nil: return .notFound
        case 502: return .backendFailed
        case 503: return .unavailable
        case 504: return .backendTimeout
        default: return .rejected
        }
    }
}

/// One backend's traffic.
package final class BackendTraffic: Sendable {
    private let counters: Counters
    var bytes: Int { counters.bytes }

    private static var failures: Int { ServiceTraffic.classMax + 1 }
    private static var opened: Int { failures + BackendFault.kinds.count }
    private static var open: Int { opened + 1 }

    init(workers: Int) { counters = Counters(width: Self.open + 1, lanes: workers) }

    @inline(__always)
    func answered(_ status: Int, worker: Int) {
        counters.add(1, to: min(max(0, status / 100), ServiceTraffic.classMax), lane: worker)
    }

    func failed(_ fault: BackendFault, worker: Int) {
        guard let kind = fault.kind else { return }
        counters.add(1, to: Self.failures + kind, lane: worker)
    }

    func connectionOpened(worker: Int) {
        counters.add(1, to: Self.opened, lane: worker)
        counters.add(1, to: Self.open, lane: worker)
    }
    func connectionClosed(worker: Int) { counters.add(-1, to: Self.open, lane: worker) }

    package func answers(class codeClass: Int) -> Int { counters.total(codeClass) }
    /// Exchanges that it let down, by the names of `BackendFault.kinds`.
    package var faults: [(kind: String, count: Int)] {
        BackendFault.kinds.enumerated().map { ($1, counters.total(Self.failures + $0)) }
    }
    package var connectionsOpened: Int { counters.total(Self.opened) }
    package var connectionsOpen: Int { counters.total(Self.open) }
}

extension BackendFault {
    /// Labels of metrics, and stable.
    static let kinds = ["refused", "connect_timeout", "reset", "response_timeout", "malformed"]

    /// `nil`: it has answered, be it with an error.
    var kind: Int? {
        switch self {
        case .refused: 0
        case .connectTimeout: 1
        case .reset: 2
        case .responseTimeout: 3
        case .malformed: 4
        case .serverError: nil
        }
    }
}

/// All traffic of a node, by name: what a service has counted goes on where another configuration has it too.
package final class TrafficRegistry: Sendable {
    private struct Key: Hashable {
        var service: String
        var url: String
    }

    let workers: Int
    private let services = Mutex<[String: ServiceTraffic]>([:])
    private let backends = Mutex<[Key: BackendTraffic]>([:])
    /// Requests that no service has taken.
    package let unrouted: ServiceTraffic
    private let accepted: Counters

    package init(workers: Int) {
        self.workers = max(1, workers)
        unrouted = ServiceTraffic(workers: self.workers)
        accepted = Counters(width: 1, lanes: self.workers)
    }

    func service(_ name: String) -> ServiceTraffic {
        services.withLock { all in
            if let found = all[name] { return found }
            let new = ServiceTraffic(workers: workers)
            all[name] = new
            return new
        }
    }

    func backend(_ service: String, _ url: String) -> BackendTraffic {
        let key = Key(service: service, url: url)
        return backends.withLock { all in
            if let found = all[key] { return found }
            let new = BackendTraffic(workers: workers)
            all[key] = new
            return new
        }
    }

    /// Memory of all counters, of which the untouched take none.
    var bytes: Int {
        let all = services.withLock { $0.values.reduce(0) { $0 + $1.bytes } } + unrouted.bytes + accepted.bytes
        return all + backends.withLock { $0.values.reduce(0) { $0 + $1.bytes } }
    }

    func connectionAccepted(worker: Int) { accepted.add(1, to: 0, lane: worker) }
    package var connectionsAccepted: Int { accepted.total(0) }
}
