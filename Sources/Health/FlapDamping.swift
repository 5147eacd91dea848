// A backend that fails again soon after its return stays out twice as long as before, to a bound: each return costs
// some clients an error, and one that comes and goes costs more than one that is gone.

import Primitives

struct FlapDamping: Sendable {
    /// How often in a row it has failed soon after its return.
    private var relapses: Int64 = 0
    private var lastReturn: MonotonicTime?
    private var heldUntil: MonotonicTime?

    /// So long after its return, in stays, a failure is a new story.
    private static let memory: Int64 = 4
    /// 2 to this power is beyond every bound that can be configured.
    private static let relapsesMax: Int64 = 32

    /// How long a failure now keeps it out.
    func stay(_ settings: HealthSettings) -> TimeSpan {
        let longest = max(settings.cooldown, settings.cooldownMax)
        return max(HealthSettings.probeGapMin, min(settings.cooldown * (1 << relapses), longest))
    }

    mutating func failed(at now: MonotonicTime, _ settings: HealthSettings) {
        if let lastReturn, now - lastReturn < stay(settings) * Self.memory {
            relapses = min(relapses + 1, Self.relapsesMax)
        } else {
            relapses = 0
        }
        // The first time, good probes alone decide.
        heldUntil = relapses > 0 ? now + stay(settings) : nil
    }

    func mayReturn(at now: MonotonicTime) -> Bool { heldUntil.map { $0 <= now } ?? true }

    mutating func recovered(at now: MonotonicTime) {
        lastReturn = now
        heldUntil = nil
    }
}
