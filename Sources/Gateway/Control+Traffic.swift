// What the requests of this node say of its backends, beyond failures in a row: shares of failures, and the slow start
// of those that have come back.

import Balancing
import Configuration
import EventLoop
import Health
import Primitives
import Synchronization

/// Looks at the totals of services that judge by the share of failures.
final class FailureShares {
    private struct Watched {
        let backend: Backend
        let key: BackendKey
        var window: FailureWindow
    }

    private var watched: [Watched] = []
    /// How often to look; `nil` where no service judges so.
    private(set) var interval: TimeSpan?

    init(_ services: [Service]) {
        for service in services {
            guard let rule = service.settings.health.failureShare else { continue }
            interval = min(interval ?? .max, rule.window / FailureWindow.steps)
            for backend in service.backends {
                watched.append(
                    Watched(
                        backend: backend, key: BackendKey(service: service.settings.name, url: backend.url),
                        window: FailureWindow(
                            window: rule.window, sharePercent: rule.share, requestsMin: rule.requests)))
            }
        }
    }

    /// Backends of which too large a share has failed, with the evidence.
    func look(at now: MonotonicTime) -> [(key: BackendKey, evidence: String)] {
        var found: [(BackendKey, String)] = []
        for i in watched.indices {
            let failed = watched[i].backend.failures.load(ordering: .relaxed)
            let answered = watched[i].backend.answers.load(ordering: .relaxed) &+ failed
            if let (all, bad) = watched[i].window.sample(answered: answered, failed: failed, at: now) {
                found.append((watched[i].key, "\(bad) of \(all) requests failed"))
            }
        }
        return found
    }
}

/// Backends that have come back and do not have their whole share yet.
struct SlowStarts {
    private var started: [BackendKey: MonotonicTime] = [:]

    mutating func begin(_ key: BackendKey, at now: MonotonicTime) { started[key] = now }
    mutating func end(_ key: BackendKey) { started[key] = nil }

    var isEmpty: Bool { started.isEmpty }
    var services: Set<String> { Set(started.keys.map(\.service)) }

    static func step(_ span: TimeSpan) -> TimeSpan {
        max(DataPathLimits.slowStartStepMin, span / DataPathLimits.slowStartSteps)
    }

    /// Of `BalancerSnapshot.wholeShare`; grows in proportion to the time, and is done when it is whole.
    mutating func share(of key: BackendKey, over span: TimeSpan, at now: MonotonicTime) -> Int {
        guard let start = started[key] else { return BalancerSnapshot.wholeShare }
        let age = now - start
        guard age < span else {
            started[key] = nil
            return BalancerSnapshot.wholeShare
        }
        let whole = Int64(BalancerSnapshot.wholeShare)
        return Int(max(1, age.microseconds * whole / max(1, span.microseconds)))
    }
}

/// What became of a service's failed requests on this node.
package struct RetryRow: Sendable {
    package var service: String
    /// Those that went to another backend.
    package var retries: UInt64
    /// Those for which the budget was used up.
    package var denied: UInt64
}

extension Control {
    package var retryRows: [RetryRow] {
        node.services.map {
            RetryRow(
                service: $0.settings.name, retries: $0.retries.load(ordering: .relaxed),
                denied: $0.retriesDenied.load(ordering: .relaxed))
        }
    }

    func lookAtShares() {
        guard let interval = failureShares.interval else { return }
        shareTimer.schedule(after: interval)
        for (key, evidence) in failureShares.look(at: loop.now) {
            health.trafficShareFailed(key, evidence, at: moment, into: &actions)
        }
        perform()
    }

    /// Gives the workers the order of those backends of a service that may be used now.
    func postBalancer(_ service: Service) {
        guard !isBeginning, let index = node.services.firstIndex(where: { $0 === service }) else { return }
        let snapshot = balancer(service)
        for worker in workers { worker.post(.balancer(service: index, snapshot)) }
    }

    /// The order of those backends of a service that may be used now.
    func balancer(_ service: Service) -> BalancerSnapshot {
        let name = service.settings.name
        let now = loop.now
        let span = service.settings.health.slowStart
        var isGrowing = false
        let snapshot = service.balancer(
            mayUse(service),
            share: { backend in
                guard !slowStarts.isEmpty else { return BalancerSnapshot.wholeShare }
                let share = slowStarts.share(of: BackendKey(service: name, url: backend.url), over: span, at: now)
                if share < BalancerSnapshot.wholeShare { isGrowing = true }
                return share
            }, trials: trials(service))
        if isGrowing, slowStartDue == nil {
            let due = now + SlowStarts.step(span)
            slowStartDue = due
            slowStartTimer.schedule(at: due)
        }
        return snapshot
    }

    func grow() {
        slowStartDue = nil
        let names = slowStarts.services
        for service in node.services where names.contains(service.settings.name) { postBalancer(service) }
    }
}
