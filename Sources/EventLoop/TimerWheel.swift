package import Primitives

/// Deadlines in buckets of a few milliseconds, so that setting one costs an append and nothing is ever searched.
///
/// An entry is never removed: what it stands for is asked when its bucket comes round, and either fires, or asks to be
/// put in again for its new deadline. A connection whose deadline moves back with every request therefore costs one
/// entry in eight seconds. (A heap was rejected: it costs a sift for each request.)
package struct TimerWheel {
    package struct Entry: Equatable {
        package var cookie: UInt64
        /// The bucket's number since the wheel began; the owner compares it with the one it last asked for.
        package var tick: Int64
    }

    /// The granularity: fine enough for a Redis timeout of 50 ms, coarse enough to wake seldom.
    package static let tick = TimeSpan.milliseconds(4)
    /// 2,048 buckets of 4 ms reach 8.2 s; later deadlines wait in the last bucket and are put in again.
    private static let bucketCount: Int64 = 2048

    private var buckets: [[Entry]]
    /// One bit a bucket that holds entries, so that the next one is found without looking at each.
    private var occupied: [UInt64]
    private var current: Int64
    private var count = 0
    private var expired: [Entry] = []

    package init(now: MonotonicTime) {
        buckets = Array(repeating: [], count: Int(Self.bucketCount))
        occupied = Array(repeating: 0, count: Int(Self.bucketCount) / 64)
        current = Self.tickNumber(now)
    }

    /// The first tick that ends at or after a moment: a deadline never fires early.
    private static func tickNumber(_ time: MonotonicTime) -> Int64 {
        saturatingAdd(time.nanoseconds, tick.nanoseconds - 1) / tick.nanoseconds
    }

    /// Puts in an entry; returns the tick in which it will come up, which may be before the deadline.
    package mutating func insert(_ cookie: UInt64, deadline: MonotonicTime) -> Int64 {
        let due = min(max(Self.tickNumber(deadline), current + 1), current + Self.bucketCount - 1)
        let index = Int(due & (Self.bucketCount - 1))
        buckets[index].append(Entry(cookie: cookie, tick: due))
        occupied[index >> 6] |= 1 << UInt64(index & 63)
        count += 1
        return due
    }

    /// Takes out all entries whose tick has passed.
    package mutating func advance(to now: MonotonicTime, _ body: (Entry) -> Void) {
        let target = now.nanoseconds / Self.tick.nanoseconds
        guard target > current else { return }
        expired.removeAll(keepingCapacity: true)
        var remaining = min(target - current, Self.bucketCount)
        while remaining > 0, count > 0 {
            guard let next = nextOccupied(), next <= target else { break }
            current = next
            remaining = min(target - current, Self.bucketCount)
            let index = Int(next & (Self.bucketCount - 1))
            count -= buckets[index].count
            expired.append(contentsOf: buckets[index])
            buckets[index].removeAll(keepingCapacity: buckets[index].count <= 64)
            occupied[index >> 6] &= ~(1 << UInt64(index & 63))
        }
        current = target
        for entry in expired { body(entry) }
    }

    /// When the next bucket with entries is over; `nil` where there is none.
    package var next: MonotonicTime? {
        guard count > 0, let tick = nextOccupied() else { return nil }
        return MonotonicTime(nanoseconds: tick * Self.tick.nanoseconds)
    }

    private func nextOccupied() -> Int64? {
        let first = Int((current + 1) & (Self.bucketCount - 1))
        let words = occupied.count
        for step in 0...words {
            let word = (first >> 6 + step) % words
            var bits = occupied[word]
            if step == 0 { bits &= ~UInt64(0) << UInt64(first & 63) }
            if step == words { bits &= (1 << UInt64(first & 63)) &- 1 }
            if bits != 0 {
                let index = word << 6 + bits.trailingZeroBitCount
                let distance = (index - first) & Int(Self.bucketCount - 1)
                return current + 1 + Int64(distance)
            }
        }
        return nil
    }
}
