// The traffic of the last minutes, for the dashboard: looks at the counters every two seconds, and what came in between.
// Bounded: ten minutes of the node's whole, and only the last look of each service and backend.

import Configuration
package import Health
package import Primitives
import RateLimiting

/// A node's traffic between two looks. Rates are a second.
package struct TrafficRate: Sendable {
    package var requests = 0.0
    /// Answers 5xx, whoever made them, and answers that broke off or were cut off. A service under maintenance makes none.
    package var errors = 0.0
    /// Refused by limits.
    package var limited = 0.0
    package var p50 = TimeSpan.zero
    package var p90 = TimeSpan.zero
    package var p99 = TimeSpan.zero

    package init() {}
}

package struct TrafficPoint: Sendable {
    /// Milliseconds since 1970.
    package var time: Int64
    package var rate: TrafficRate
}

extension ServiceTraffic {
    /// Requests in all, those that failed, and those that limits refused.
    struct Totals {
        var requests = 0
        var errors = 0
        var limited = 0

        static func - (a: Totals, b: Totals) -> Totals {
            Totals(requests: a.requests - b.requests, errors: a.errors - b.errors, limited: a.limited - b.limited)
        }
    }

    var totals: Totals {
        var totals = Totals()
        for codeClass in 0...Self.classMax {
            for outcome in RequestOutcome.allCases {
                let count = requests(class: codeClass, outcome)
                guard count > 0 else { continue }
                totals.requests += count
                if outcome == .limited { totals.limited += count }
                if outcome.isError(class: codeClass) { totals.errors += count }
            }
        }
        return totals
    }
}

package final class TrafficHistory {
    private struct Look {
        var totals = ServiceTraffic.Totals()
        var durations = DurationSummary()
    }

    private var looks: [String: Look] = [:]
    private var backendLooks: [BackendKey: (answered: Int, failed: Int)] = [:]
    private var policyLooks: [(admitted: Int, refused: Int)] = []
    private var lookedAt: MonotonicTime?
    private var turns = 0

    package private(set) var points: [TrafficPoint] = []
    package private(set) var services: [String: TrafficRate] = [:]
    package private(set) var backends: [BackendKey: (requests: Double, errors: Double)] = [:]
    /// How long Redis took for decisions lately.
    package private(set) var redis = DurationSummary()
    private var redisLook = DurationSummary()
    package private(set) var policies: [(admitted: Double, refused: Double)] = []

    package static let interval = TimeSpan.seconds(2)
    private static let pointsMax = 300
    /// Refusals of a minute ago count half.
    private static let turnsOfFading = 30

    func look(
        _ services: [Service], _ traffic: TrafficRegistry, _ limits: LimitStatus, refused: [RefusedTable],
        redis trips: DurationSummary?, at now: MonotonicTime, wall: Int64
    ) {
        if let trips {
            redis = trips.since(redisLook)
            redisLook = trips
        }
        let seconds = lookedAt.map { max(0.001, (now - $0).seconds) }
        lookedAt = now
        var whole = Look()
        var before = Look()
        var rates: [String: TrafficRate] = [:]
        var newLooks: [String: Look] = [:]
        for (name, traffic) in services.map({ ($0.settings.name, $0.traffic) }) + [("", traffic.unrouted)] {
            let look = Look(totals: traffic.totals, durations: traffic.durations)
            let last = looks[name] ?? Look()
            newLooks[name] = look
            Self.add(look, to: &whole)
            Self.add(last, to: &before)
            if let seconds { rates[name] = Self.rate(look, since: last, seconds) }
        }
        looks = newLooks
        self.services = rates
        if let seconds {
            if points.count == Self.pointsMax { points.removeFirst() }
            points.append(TrafficPoint(time: wall / 1_000, rate: Self.rate(whole, since: before, seconds)))
        }
        lookAtBackends(services, seconds)
        lookAtPolicies(limits, seconds)
        turns += 1
        if turns % Self.turnsOfFading == 0 { for table in refused { table.fade() } }
    }

    private static func add(_ look: Look, to sum: inout Look) {
        sum.totals.requests += look.totals.requests
        sum.totals.errors += look.totals.errors
        sum.totals.limited += look.totals.limited
        sum.durations.add(look.durations)
    }

    private static func rate(_ look: Look, since last: Look, _ seconds: Double) -> TrafficRate {
        let totals = look.totals - last.totals
        let durations = look.durations.since(last.durations)
        var rate = TrafficRate()
        // A service that another configuration has taken away and brought back has counted on: never below zero.
        rate.requests = Double(max(0, totals.requests)) / seconds
        rate.errors = Double(max(0, totals.errors)) / seconds
        rate.limited = Double(max(0, totals.limited)) / seconds
        rate.p50 = durations.quantile(0.5)
        rate.p90 = durations.quantile(0.9)
        rate.p99 = durations.quantile(0.99)
        return rate
    }

    private func lookAtBackends(_ services: [Service], _ seconds: Double?) {
        var newLooks: [BackendKey: (answered: Int, failed: Int)] = [:]
        var rates: [BackendKey: (requests: Double, errors: Double)] = [:]
        for service in services {
            for backend in service.backends {
                let key = BackendKey(service: service.settings.name, url: backend.url)
                let faults = backend.traffic.faults.reduce(0) { $0 + $1.count }
                let answered = (0...ServiceTraffic.classMax).reduce(0) { $0 + backend.traffic.answers(class: $1) }
                let look = (answered: answered + faults, failed: backend.traffic.answers(class: 5) + faults)
                newLooks[key] = look
                if let seconds {
                    let last = backendLooks[key] ?? (0, 0)
                    rates[key] = (
                        Double(max(0, look.answered - last.answered)) / seconds,
                        Double(max(0, look.failed - last.failed)) / seconds
                    )
                }
            }
        }
        backendLooks = newLooks
        backends = rates
    }

    private func lookAtPolicies(_ limits: LimitStatus, _ seconds: Double?) {
        let looks = limits.policies.indices.map { (admitted: limits.admitted(by: $0), refused: limits.refused(by: $0)) }
        if let seconds, policyLooks.count == looks.count {
            policies = zip(looks, policyLooks).map { now, last in
                (
                    Double(max(0, now.admitted - last.admitted)) / seconds,
                    Double(max(0, now.refused - last.refused)) / seconds
                )
            }
        }
        policyLooks = looks
    }
}
