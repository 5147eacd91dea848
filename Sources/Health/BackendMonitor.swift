// One backend as this node alone sees it: when to probe it, and what this node thinks of it.
//
// Probes are seldom while all is well, more frequent after a failure, and most frequent while the backend is down. Two
// kinds of evidence lead to a verdict. `failures` failed probes in a row, and `successes` successful ones end it. Or
// `failures` failed requests in a row, which also cause a probe at once: if that fails, the probe explains the failed
// requests, and the verdict is one of probes from then on. If it succeeds (a healthy `/health` before a broken
// service) the verdict stands for `cooldown`, and then traffic is let through again to see.
// Where somebody else has judged the backend down, one failed probe is enough (`confirm`): it does not stand alone.

package import Primitives

/// Whether a node's own opinion has changed by an input.
package enum OpinionChange: Equatable, Sendable { case unchanged, changed }

package struct BackendMonitor: Sendable {
    /// What this node thinks of the backend.
    package enum Standing: Equatable, Sendable {
        case up
        case downByProbe
        /// Requests fail although probes do not, as far as is known. Withdrawn at the given time.
        case downByTraffic(until: MonotonicTime)
    }

    /// How urgently the backend is watched.
    private enum Pace { case calm, warned, down }

    private enum Probing {
        /// No probes: they are switched off.
        case off
        case waiting(due: MonotonicTime)
        /// One probe is under way. `givenUp` is when it counts as failed although nobody has told how it ended.
        case running(attempt: UInt64, givenUp: MonotonicTime)
    }

    package private(set) var settings: HealthSettings
    package private(set) var standing = Standing.up
    /// Why `standing` is what it is, for people.
    package private(set) var evidence: String
    /// Another living node judges the backend down. It is watched as after a failure of this node's own.
    package private(set) var isSuspected = false

    private var probing: Probing
    /// One failed probe is enough. Set by `confirm`, cleared by the end of a probe that started afterwards.
    private var confirming = false
    /// `confirming` was asked for while a probe was under way, whose success may be older than the news.
    private var confirmAgain = false
    private var lastProbeStart: MonotonicTime?
    private var pace = Pace.calm
    private var failedProbes = 0
    private var goodProbes = 0
    private var failedRequests = 0

    /// First probes are spread over this much, so that a node with many backends does not start them all at once.
    private static let startSpreadMax = TimeSpan.milliseconds(500)
    /// A probe is given up so long after its timeout, which the prober itself should have kept.
    private static let proberSlack = TimeSpan.seconds(1)

    package init(settings: HealthSettings, now: MonotonicTime, random: inout some RandomNumberGenerator) {
        self.settings = settings
        probing = .off
        evidence = settings.active ? "not probed yet" : "no failed requests"
        if settings.active { probing = .waiting(due: now + Self.startSpread(settings, &random)) }
    }

    private static func startSpread(
        _ settings: HealthSettings, _ random: inout some RandomNumberGenerator
    ) -> TimeSpan {
        let most = min(startSpreadMax, max(.zero, settings.interval))
        return .nanoseconds(Int64.random(in: 0...most.nanoseconds, using: &random))
    }

    // MARK: When

    /// When `tick` has something to do.
    package var nextDeadline: MonotonicTime {
        let probeTime: MonotonicTime =
            switch probing {
            case .off: .distantFuture
            case .waiting(let due): due
            case .running(_, let givenUp): givenUp
            }
        switch standing {
        case .up, .downByProbe: return probeTime
        case .downByTraffic(let until): return min(probeTime, until)
        }
    }

    /// Whether a probe is to be started now.
    package func probeIsDue(at now: MonotonicTime) -> Bool {
        switch probing {
        case .off, .running: false
        case .waiting(let due): due <= now
        }
    }

    /// The probe that was due has been started under this number.
    package mutating func probeStarted(attempt: UInt64, at now: MonotonicTime) {
        lastProbeStart = now
        confirmAgain = false
        probing = .running(attempt: attempt, givenUp: now + max(.zero, settings.timeout) + Self.proberSlack)
    }

    /// Lets pass what only time brings: the end of a cooldown, a probe that nobody finished.
    package mutating func tick(
        at now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> OpinionChange {
        if case .running(_, let givenUp) = probing, givenUp <= now {
            return ended(.failed(.timeout), at: now, &random)
        }
        if case .downByTraffic(let until) = standing, until <= now {
            standing = .up
            failedRequests = 0
            warn()
            evidence = "tried again after \(settings.cooldown) of cooldown"
            return .changed
        }
        return .unchanged
    }

    // MARK: Evidence

    /// A probe has ended. Results of another attempt than the one under way are late and change nothing.
    package mutating func probeFinished(
        attempt: UInt64, _ result: ProbeResult, at now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> OpinionChange {
        guard case .running(attempt, _) = probing else { return .unchanged }
        return ended(result, at: now, &random)
    }

    private mutating func ended(
        _ result: ProbeResult, at now: MonotonicTime, _ random: inout some RandomNumberGenerator
    ) -> OpinionChange {
        let change: OpinionChange
        switch result {
        case .succeeded: change = succeeded()
        case .failed(let failure): change = failed(failure)
        }
        let again = confirmAgain && standing != .downByProbe
        confirming = again
        confirmAgain = false
        probing = .waiting(due: again ? earliestProbe(now) : now + jittered(pacedInterval, &random))
        return change
    }

    private mutating func succeeded() -> OpinionChange {
        failedProbes = 0
        goodProbes = min(goodProbes + 1, max(1, settings.successes))
        let enough = goodProbes >= max(1, settings.successes)
        switch standing {
        case .up:
            if enough { pace = .calm }
            evidence = "probes succeed"
            return .unchanged
        case .downByTraffic: return .unchanged
        case .downByProbe:
            guard enough else { return .unchanged }
            standing = .up
            pace = .calm
            failedRequests = 0
            evidence = goodProbes == 1 ? "a successful probe" : "\(goodProbes) successful probes"
            return .changed
        }
    }

    private mutating func failed(_ failure: HealthFailure) -> OpinionChange {
        goodProbes = 0
        failedProbes = min(failedProbes + 1, max(1, settings.failures))
        switch standing {
        case .downByProbe: return .unchanged
        case .downByTraffic:
            evidence = "failed requests, and a failed probe: \(failure)"
        case .up:
            guard confirming || failedProbes >= max(1, settings.failures) else {
                warn()
                evidence = "\(failedProbes) of \(settings.failures) failed probes: \(failure)"
                return .unchanged
            }
            evidence =
                confirming && failedProbes < max(1, settings.failures)
                ? "a failed confirming probe: \(failure)" : "\(failedProbes) failed probes: \(failure)"
        }
        standing = .downByProbe
        pace = .down
        return .changed
    }

    /// A request to the backend has failed: a 5xx answer, a broken connection, a timeout.
    package mutating func requestFailed(
        _ failure: HealthFailure, at now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> OpinionChange {
        guard standing == .up else { return .unchanged }
        failedRequests = min(failedRequests + 1, max(1, settings.failures))
        guard failedRequests >= max(1, settings.failures) else {
            warn()
            hasten(at: now, &random)
            evidence = "\(failedRequests) of \(settings.failures) failed requests: \(failure)"
            return .unchanged
        }
        standing = .downByTraffic(until: cooldownEnd(now))
        pace = .down
        goodProbes = 0
        evidence = "\(failedRequests) failed requests: \(failure)"
        confirm(at: now)
        return .changed
    }

    /// A request has succeeded after one that failed.
    package mutating func requestSucceeded() { failedRequests = 0 }

    /// Somebody else, or this node's traffic, says that the backend is down: probe at once, and let one failure do.
    package mutating func confirm(at now: MonotonicTime) {
        guard standing != .downByProbe else { return }
        switch probing {
        case .off: return
        case .waiting(let due):
            confirming = true
            probing = .waiting(due: min(due, earliestProbe(now)))
        case .running:
            confirming = true
            confirmAgain = true
        }
    }

    /// Whether other living nodes judge the backend down.
    package mutating func suspect(
        _ suspected: Bool, at now: MonotonicTime, random: inout some RandomNumberGenerator
    ) {
        guard suspected != isSuspected else { return }
        isSuspected = suspected
        if suspected { hasten(at: now, &random) }
    }

    /// Goes on under other settings. What is known about the backend stays known.
    package mutating func reconfigure(
        _ new: HealthSettings, at now: MonotonicTime, random: inout some RandomNumberGenerator
    ) {
        guard new != settings else { return }
        settings = new
        confirming = false
        confirmAgain = false
        guard new.active else {
            probing = .off
            // Nothing else would ever end a verdict of probes.
            if standing == .downByProbe { standing = .downByTraffic(until: cooldownEnd(now)) }
            return
        }
        probing = .waiting(due: now + Self.startSpread(new, &random))
    }

    // MARK: Pace

    private mutating func warn() {
        if pace != .warned { goodProbes = 0 }
        pace = .warned
    }

    private var pacedInterval: TimeSpan {
        switch pace {
        case .down: settings.downInterval
        case .warned: settings.warningInterval
        case .calm: isSuspected ? min(settings.interval, settings.warningInterval) : settings.interval
        }
    }

    /// Moves the next probe forward to where the pace wants it.
    private mutating func hasten(at now: MonotonicTime, _ random: inout some RandomNumberGenerator) {
        guard case .waiting(let due) = probing else { return }
        probing = .waiting(due: min(due, now + jittered(pacedInterval, &random)))
    }

    /// Within a tenth of the interval, so that nodes which started together do not probe together for ever.
    private func jittered(_ interval: TimeSpan, _ random: inout some RandomNumberGenerator) -> TimeSpan {
        let tenth = max(0, interval.nanoseconds) / 10
        return max(
            HealthSettings.probeGapMin, interval + .nanoseconds(Int64.random(in: -tenth...tenth, using: &random)))
    }

    private func cooldownEnd(_ now: MonotonicTime) -> MonotonicTime {
        now + max(HealthSettings.probeGapMin, settings.cooldown)
    }

    private func earliestProbe(_ now: MonotonicTime) -> MonotonicTime {
        guard let last = lastProbeStart else { return now }
        return max(now, last + HealthSettings.probeGapMin)
    }
}
