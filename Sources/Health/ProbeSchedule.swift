// When the next probe of one backend is due for this node, and for which of three reasons.

import Primitives

struct ProbeSchedule: Sendable {
    /// When the next turn is due for the node that has it; those behind it in rank wait for it first.
    var turn: MonotonicTime
    /// The probe after which `turn` was set.
    var number: UInt64 = 0
    /// How many nodes go before this one; `nil` where it has no turn, because it alone judges the backend down.
    var rank: Int? = 0
    var nodes = 1
    /// How long each of them may take.
    var takeover = TimeSpan.zero
    /// A probe that was asked for.
    var urgent: MonotonicTime?
    /// A probe for this node's own sake.
    var own: MonotonicTime?
    var isDownForAll = false
    /// How many nodes judge the backend down.
    var accusers = 0
    var othersAccuse = false

    /// First probes are spread over this much, so that a node with many backends does not start them all at once.
    private static let startSpreadMax = TimeSpan.milliseconds(500)

    init(first: MonotonicTime) { turn = first }

    static func startSpread(_ settings: HealthSettings, _ random: inout some RandomNumberGenerator) -> TimeSpan {
        let most = min(startSpreadMax, max(.zero, settings.interval))
        return .nanoseconds(Int64.random(in: 0...most.nanoseconds, using: &random))
    }

    /// When this node's turn comes, if those before it let theirs pass.
    var ownTurn: MonotonicTime { rank.map { turn + takeover * Int64($0) } ?? .distantFuture }

    var next: MonotonicTime { min(ownTurn, urgent ?? .distantFuture, own ?? .distantFuture) }

    func isTurnDue(at now: MonotonicTime) -> Bool { ownTurn <= now }
}

extension BackendMonitor {
    /// More good probes are wanted before the pace is calm again.
    mutating func warn() { goodProbesWanting = max(1, settings.successes) }

    private var pacedInterval: TimeSpan {
        if schedule.isDownForAll || standing != .up { return settings.downInterval }
        if goodProbesWanting > 0 { return settings.warningInterval }
        return schedule.othersAccuse ? min(settings.interval, settings.warningInterval) : settings.interval
    }

    /// A turn has been taken, by whomever: the next follows an interval later.
    mutating func turnPassed(at now: MonotonicTime, _ random: inout some RandomNumberGenerator) {
        schedule.number = record.number
        schedule.turn = now + jittered(pacedInterval, &random)
    }

    /// Moves the next turn forward to where the pace wants it.
    mutating func hasten(at now: MonotonicTime, _ random: inout some RandomNumberGenerator) {
        schedule.turn = min(schedule.turn, now + jittered(pacedInterval, &random))
    }

    /// Sees to this node's own path while the others' probes say nothing of it. All who look for themselves share one
    /// pace, so that however many they are, they cost the backend the same.
    mutating func scheduleOwn(at now: MonotonicTime, _ random: inout some RandomNumberGenerator) {
        let isDoubtful = standing == .downByProbe || ownBad > 0
        guard schedule.nodes > 1, !schedule.isDownForAll, isDoubtful else {
            schedule.own = nil
            return
        }
        guard schedule.own == nil else { return }
        let interval = standing == .up ? settings.warningInterval : settings.downInterval
        schedule.own = now + jittered(interval * Int64(max(1, schedule.accusers)), &random)
    }

    /// Within a tenth of the interval, so that nodes which started together do not probe together for ever.
    func jittered(_ interval: TimeSpan, _ random: inout some RandomNumberGenerator) -> TimeSpan {
        let tenth = max(0, interval.nanoseconds) / 10
        return max(
            HealthSettings.probeGapMin, interval + .nanoseconds(Int64.random(in: -tenth...tenth, using: &random)))
    }
}
