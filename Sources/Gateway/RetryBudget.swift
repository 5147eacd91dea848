// How many retries a service may cost, as a share of its recent requests.
//
// A retry is a request more. Where every request fails, retrying each of them doubles the load on backends that are
// failing already, and an outage becomes one that does not end. So retries are a bounded share of what was asked
// lately; below that, a small number is always free, or a quiet service could never retry.

package import Primitives

/// Counts of the last ten seconds in ten slots; no allocation, and one comparison and two additions for a request.
package struct RetryBudget: Sendable {
    private static let slotCount = 10
    private static let slotLength: Int64 = 1_000_000_000

    private let percent: Int
    private let minimum: Int
    private var requests: InlineArray<10, Int> = InlineArray(repeating: 0)
    private var retries: InlineArray<10, Int> = InlineArray(repeating: 0)
    private var requestSum = 0
    private var retrySum = 0
    /// The second to which the newest slot belongs.
    private var second: Int64 = 0

    /// - Parameters:
    ///   - percent: retries for a hundred requests.
    ///   - minimum: retries in ten seconds that are free of that.
    package init(percent: Int, minimum: Int) {
        self.percent = percent
        self.minimum = minimum
    }

    /// A request is sent for the first time.
    package mutating func requested(at now: MonotonicTime) {
        let slot = slot(at: now)
        requests[slot] += 1
        requestSum += 1
    }

    /// Takes a retry out of the budget; `false` where there is none left.
    package mutating func take(at now: MonotonicTime) -> Bool {
        let slot = slot(at: now)
        guard retrySum < max(minimum, requestSum * percent / 100) else { return false }
        retries[slot] += 1
        retrySum += 1
        return true
    }

    /// The slot of the current second, emptied of what was counted ten seconds ago.
    private mutating func slot(at now: MonotonicTime) -> Int {
        let current = now.nanoseconds / Self.slotLength
        if current > second { advance(to: current) }
        return Int(second % Int64(Self.slotCount))
    }

    private mutating func advance(to current: Int64) {
        let passed = min(current - second, Int64(Self.slotCount))
        for step in 0..<passed {
            let slot = Int((current - step) % Int64(Self.slotCount))
            requestSum -= requests[slot]
            retrySum -= retries[slot]
            requests[slot] = 0
            retries[slot] = 0
        }
        second = current
    }
}
