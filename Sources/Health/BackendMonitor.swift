// One backend as this node alone sees it: when to probe it, and what this node thinks of it.
//
// Probes are seldom while all is well, more frequent after a failure, and most frequent while the backend is down. The
// nodes take turns (`ProbeRecord`), and count streaks together: what one node's probe showed is known to all. Two kinds
// of evidence lead to a verdict. `failures` failed probes in a row, the last of them this node's own, and `successes`
// successful ones end it. Or `failures` failed requests in a row, which also cause a probe at once: if that fails, the
// probe explains the failed requests, and the verdict is one of probes from then on. If it succeeds (a healthy `/health`
// before a broken service) the verdict stands for `cooldown`, and then traffic is let through again to see.
// Where somebody else has judged the backend down, one failed probe of this node's own is enough (`confirm`): it does
// not stand alone. The same on the way back: where somebody else says that it is up again, one success is (`recheck`).
// A node whose own probe has failed looks again by itself until its path is known to be whole or broken, and while it
// alone judges the backend down: the others' probes say nothing of its path.
//
// A backend that fails again soon after its return stays out longer each time, to a bound.

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

    /// Why a probe is made.
    enum Purpose { case turn, confirmation, own }

    enum Probing {
        /// No probes: they are switched off.
        case off
        case idle
        /// One probe is under way. `givenUp` is when it counts as failed although nobody has told how it ended.
        case running(attempt: UInt64, purpose: Purpose, givenUp: MonotonicTime)
    }

    package private(set) var settings: HealthSettings
    package private(set) var standing = Standing.up
    /// Why `standing` is what it is, for people.
    package private(set) var evidence: String
    /// The last thing that went wrong, of a probe or a request of this node.
    package private(set) var lastFailure: HealthFailure?
    /// What the cluster's probes have come to, as far as this node knows.
    package internal(set) var record = ProbeRecord()
    /// A probe of this node has advanced `record`, and nobody has been told.
    private var isReportDue = false

    var probing: Probing
    var schedule: ProbeSchedule
    /// One result is enough for a verdict. Set by `confirm` and `recheck`, cleared by the end of a probe that started
    /// afterwards.
    private var confirming = false
    private var rechecking = false
    /// Asked for while a probe was under way, whose result may be older than the news.
    private var askedMeanwhile = false
    private var lastProbeStart: MonotonicTime?
    /// How many good probes are wanting before all is well.
    var goodProbesWanting = 0
    /// This node's own probes in a row.
    var ownBad = 0
    private var ownGood = 0
    private var failedRequests = 0
    private var damping = FlapDamping()

    /// A probe is given up so long after its timeout, which the prober itself should have kept.
    static let proberSlack = TimeSpan.seconds(1)

    package init(settings: HealthSettings, now: MonotonicTime, random: inout some RandomNumberGenerator) {
        self.settings = settings
        probing = settings.active ? .idle : .off
        evidence = settings.active ? "not probed yet" : "no failed requests"
        schedule = ProbeSchedule(first: now + ProbeSchedule.startSpread(settings, &random))
    }

    // MARK: When

    /// When `tick` has something to do.
    package var nextDeadline: MonotonicTime {
        let probeTime: MonotonicTime =
            switch probing {
            case .off: .distantFuture
            case .idle: schedule.next
            case .running(_, _, let givenUp): givenUp
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
        case .idle: schedule.next <= now
        }
    }

    /// The probe that was due has been started under this number.
    package mutating func probeStarted(attempt: UInt64, at now: MonotonicTime) {
        let purpose: Purpose =
            schedule.isTurnDue(at: now) ? .turn : confirming || rechecking ? .confirmation : .own
        lastProbeStart = now
        askedMeanwhile = false
        schedule.urgent = nil
        probing = .running(
            attempt: attempt, purpose: purpose, givenUp: now + max(.zero, settings.timeout) + Self.proberSlack)
    }

    /// Lets pass what only time brings: the end of a cooldown, a probe that nobody finished.
    package mutating func tick(
        at now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> OpinionChange {
        if case .running(_, let purpose, let givenUp) = probing, givenUp <= now {
            return ended(.failed(.timeout), purpose, at: now, &random)
        }
        if case .downByTraffic(let until) = standing, until <= now {
            standing = .up
            damping.recovered(at: now)
            failedRequests = 0
            warn()
            evidence = "tried again after \(damping.stay(settings)) of cooldown"
            return .changed
        }
        return .unchanged
    }

    // MARK: Probes

    /// A probe has ended. Results of another attempt than the one under way are late and change nothing.
    package mutating func probeFinished(
        attempt: UInt64, _ result: ProbeResult, at now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> OpinionChange {
        guard case .running(attempt, let purpose, _) = probing else { return .unchanged }
        return ended(result, purpose, at: now, &random)
    }

    private mutating func ended(
        _ result: ProbeResult, _ purpose: Purpose, at now: MonotonicTime, _ random: inout some RandomNumberGenerator
    ) -> OpinionChange {
        probing = .idle
        // A failure that was asked for counts as the cluster's; a success does only in turn, or every confirmation
        // would shorten the way back by one.
        if purpose == .turn || purpose == .confirmation && result != .succeeded {
            record = record.advanced(by: result)
            isReportDue = true
        }
        let change: OpinionChange
        switch result {
        case .succeeded: change = succeeded(purpose, now)
        case .failed(let failure): change = failed(failure, purpose, now)
        }
        let again = askedMeanwhile && (confirming && standing != .downByProbe || rechecking && standing == .downByProbe)
        confirming = confirming && again
        rechecking = rechecking && again
        askedMeanwhile = false
        if again { schedule.urgent = earliestProbe(now) }
        if purpose == .turn || record.number > schedule.number { turnPassed(at: now, &random) }
        schedule.own = nil
        scheduleOwn(at: now, &random)
        return change
    }

    private mutating func succeeded(_ purpose: Purpose, _ now: MonotonicTime) -> OpinionChange {
        goodProbesWanting = max(0, goodProbesWanting - 1)
        ownBad = 0
        let needed = max(1, settings.successes)
        ownGood = min(ownGood + 1, needed)
        let together = purpose == .turn ? max(ownGood, record.good) : ownGood
        switch standing {
        case .up:
            evidence = "probes succeed"
            return .unchanged
        case .downByTraffic: return .unchanged
        case .downByProbe:
            guard together >= needed || rechecking else { return .unchanged }
            guard damping.mayReturn(at: now) else {
                evidence = "probes succeed again, but it has failed again too soon before: stays out a while longer"
                return .unchanged
            }
            standing = .up
            damping.recovered(at: now)
            goodProbesWanting = 0
            failedRequests = 0
            evidence =
                together < needed
                ? "a successful confirming probe"
                : together == 1 ? "a successful probe" : "\(min(together, needed)) successful probes"
            return .changed
        }
    }

    private mutating func failed(
        _ failure: HealthFailure, _ purpose: Purpose, _ now: MonotonicTime
    ) -> OpinionChange {
        lastFailure = failure
        let needed = max(1, settings.failures)
        ownGood = 0
        ownBad = min(ownBad + 1, needed)
        let together = purpose == .turn ? min(max(ownBad, record.bad), needed) : ownBad
        switch standing {
        case .downByProbe:
            warn()
            return .unchanged
        case .downByTraffic:
            evidence = "failed requests, and a failed probe: \(failure)"
        case .up:
            guard confirming || together >= needed else {
                warn()
                evidence = "\(together) of \(needed) failed probes: \(failure)"
                return .unchanged
            }
            evidence =
                confirming && together < needed
                ? "a failed confirming probe: \(failure)" : "\(together) failed probes: \(failure)"
            damping.failed(at: now, settings)
        }
        standing = .downByProbe
        warn()
        return .changed
    }

    /// Another node has told how its probe ended. Returns whether it was news.
    package mutating func heard(
        _ other: ProbeRecord, at now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> Bool {
        guard other.number <= ProbeRecord.numberMax, other.supersedes(record) else { return false }
        record = other
        isReportDue = false
        if other.bad > 0 {
            warn()
        } else {
            goodProbesWanting = max(0, goodProbesWanting - 1)
            if standing == .up { evidence = "probes succeed" }
        }
        turnPassed(at: now, &random)
        return true
    }

    /// What the others are to be told, once.
    package mutating func takeReport() -> ProbeRecord? {
        guard isReportDue else { return nil }
        isReportDue = false
        return record
    }

    // MARK: Requests

    /// A request to the backend has failed: a 5xx answer, a broken connection, a timeout.
    package mutating func requestFailed(
        _ failure: HealthFailure, at now: MonotonicTime, random: inout some RandomNumberGenerator
    ) -> OpinionChange {
        lastFailure = failure
        guard standing == .up else { return .unchanged }
        failedRequests = min(failedRequests + 1, max(1, settings.failures))
        guard failedRequests >= max(1, settings.failures) else {
            warn()
            hasten(at: now, &random)
            evidence = "\(failedRequests) of \(settings.failures) failed requests: \(failure)"
            return .unchanged
        }
        condemn("\(failedRequests) failed requests: \(failure)", at: now)
        return .changed
    }

    /// Too large a share of the requests within a window has failed, though not all in a row.
    package mutating func requestsFailed(share text: String, at now: MonotonicTime) -> OpinionChange {
        guard standing == .up else { return .unchanged }
        condemn(text, at: now)
        return .changed
    }

    private mutating func condemn(_ text: String, at now: MonotonicTime) {
        damping.failed(at: now, settings)
        standing = .downByTraffic(until: now + damping.stay(settings))
        ownGood = 0
        warn()
        evidence = text
        confirm(at: now)
    }

    /// A request has succeeded after one that failed.
    package mutating func requestSucceeded() { failedRequests = 0 }

    // MARK: The others

    /// Somebody else, or this node's traffic, says that the backend is down: probe at once, and let one failure do.
    package mutating func confirm(at now: MonotonicTime) {
        guard standing != .downByProbe else { return }
        if ask(at: now) { confirming = true }
    }

    /// Somebody else has found it up again: probe at once, and let one success do.
    package mutating func recheck(at now: MonotonicTime) {
        guard standing == .downByProbe else { return }
        if ask(at: now) { rechecking = true }
    }

    private mutating func ask(at now: MonotonicTime) -> Bool {
        switch probing {
        case .off: return false
        case .idle: schedule.urgent = min(schedule.urgent ?? .distantFuture, earliestProbe(now))
        case .running: askedMeanwhile = true
        }
        return true
    }

    /// What the cluster has come to: who goes before this node at the next turn (`nil`: it has none), whether all judge
    /// the backend down, and how many nodes do.
    package mutating func place(
        rank: Int?, of nodes: Int, isDownForAll: Bool, accusers: Int, othersAccuse: Bool, at now: MonotonicTime,
        random: inout some RandomNumberGenerator
    ) {
        let quicker = isDownForAll && !schedule.isDownForAll || othersAccuse && !schedule.othersAccuse
        schedule.rank = rank
        schedule.nodes = nodes
        schedule.isDownForAll = isDownForAll
        schedule.accusers = accusers
        schedule.othersAccuse = othersAccuse
        schedule.takeover = max(.zero, settings.timeout) + Self.proberSlack
        if quicker { hasten(at: now, &random) }
        scheduleOwn(at: now, &random)
    }

    /// Goes on under other settings. What is known about the backend stays known.
    package mutating func reconfigure(
        _ new: HealthSettings, at now: MonotonicTime, random: inout some RandomNumberGenerator
    ) {
        guard new != settings else { return }
        settings = new
        confirming = false
        rechecking = false
        askedMeanwhile = false
        schedule.urgent = nil
        schedule.own = nil
        guard new.active else {
            probing = .off
            // Nothing else would ever end a verdict of probes.
            if standing == .downByProbe { standing = .downByTraffic(until: now + damping.stay(new)) }
            return
        }
        probing = .idle
        schedule.turn = now + ProbeSchedule.startSpread(new, &random)
    }

    func earliestProbe(_ now: MonotonicTime) -> MonotonicTime {
        guard let last = lastProbeStart else { return now }
        return max(now, last + HealthSettings.probeGapMin)
    }
}
