// The share of requests that failed within a sliding window, from running totals that are looked at now and then.

package import Primitives

package struct FailureWindow: Sendable {
    private struct Sample {
        var time: MonotonicTime
        var answered: UInt64
        var failed: UInt64
    }

    /// How often the totals are looked at within a window: what leaves it leaves in such steps.
    package static let steps: Int64 = 10

    private let window: TimeSpan
    private let sharePercent: UInt64
    private let requestsMin: UInt64
    private var samples: [Sample] = []

    package init(window: TimeSpan, sharePercent: Int, requestsMin: Int) {
        self.window = window
        self.sharePercent = UInt64(clamping: max(1, sharePercent))
        self.requestsMin = UInt64(clamping: max(1, requestsMin))
    }

    /// Takes the totals so far: of all requests that ended, and of those among them that failed. Returns the window's own
    /// numbers where they condemn the backend, and then begins anew.
    package mutating func sample(
        answered: UInt64, failed: UInt64, at now: MonotonicTime
    ) -> (answered: UInt64, failed: UInt64)? {
        while samples.count > 1, samples[1].time <= now - window { samples.removeFirst() }
        defer { samples.append(Sample(time: now, answered: answered, failed: failed)) }
        guard let first = samples.first else { return nil }
        let (all, bad) = (answered &- first.answered, failed &- first.failed)
        guard all >= requestsMin, bad * 100 >= all * sharePercent else { return nil }
        samples.removeAll()
        return (all, bad)
    }
}
