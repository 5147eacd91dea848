// The scale of latency histograms: buckets as HdrHistogram lays them out, 32 to each doubling, so that a bucket is never
// wider than 1/32 of what it holds. One shift and one addition find the bucket, and all latencies from a microsecond to
// 35 minutes fit in 864 counters.
//
// Why not the package of that name: docs/decisions/histograms.md.

public enum DurationScale {
    /// Buckets in all.
    @inlinable @inline(__always)
    public static var count: Int { 864 }
    /// What is longer counts as this: 2^31 - 1 microseconds.
    @inlinable @inline(__always)
    static var microsecondsMax: UInt64 { (1 << 31) - 1 }

    /// The bucket of a duration. What is negative counts as zero.
    @inlinable @inline(__always)
    public static func index(of span: TimeSpan) -> Int {
        let value = min(UInt64(max(0, span.nanoseconds)) / 1_000, microsecondsMax)
        // The 32 smallest have a bucket each, and are the pattern of all further doublings.
        let shift = max(0, 58 &- (value | 1).leadingZeroBitCount)
        return shift &<< 5 &+ Int(truncatingIfNeeded: value &>> UInt64(truncatingIfNeeded: shift))
    }

    /// The shortest duration of a bucket.
    public static func lowerBound(_ index: Int) -> TimeSpan {
        guard index >= 64 else { return .microseconds(Int64(max(0, index))) }
        return .microseconds(Int64(32 + index & 31) << Int64(index >> 5 - 1))
    }
}

/// What a histogram held when it was looked at.
public struct DurationSummary: Sendable {
    public private(set) var counts: [Int]
    public private(set) var count = 0
    /// All durations together.
    public private(set) var sum = TimeSpan.zero

    public init() { counts = [Int](repeating: 0, count: DurationScale.count) }

    public mutating func add(_ number: Int, at index: Int) {
        counts[index] += number
        count += number
    }

    public mutating func add(sum more: TimeSpan) { sum = sum + more }

    public mutating func add(_ other: DurationSummary) {
        for index in counts.indices { counts[index] += other.counts[index] }
        count += other.count
        sum = sum + other.sum
    }

    /// What has come in since an earlier look at the same histogram.
    public func since(_ earlier: DurationSummary) -> DurationSummary {
        var result = self
        for index in counts.indices { result.counts[index] -= earlier.counts[index] }
        result.count -= earlier.count
        result.sum = sum - earlier.sum
        return result
    }

    /// How many took no longer than `bound`. A bucket counts where its middle does not lie beyond.
    public func count(upTo bound: TimeSpan) -> Int {
        var total = 0
        for index in counts.indices {
            let middle = (DurationScale.lowerBound(index) + DurationScale.lowerBound(index + 1)) / 2
            guard middle <= bound else { break }
            total += counts[index]
        }
        return total
    }

    /// The duration that a share of all does not exceed, but for the width of a bucket; zero where there are none.
    /// - Parameter share: 0...1.
    public func quantile(_ share: Double) -> TimeSpan {
        guard count > 0 else { return .zero }
        let rank = max(1, Int((Double(count) * share).rounded(.up)))
        var seen = 0
        for index in counts.indices {
            seen += counts[index]
            if seen >= rank { return (DurationScale.lowerBound(index) + DurationScale.lowerBound(index + 1)) / 2 }
        }
        return DurationScale.lowerBound(DurationScale.count)
    }
}
