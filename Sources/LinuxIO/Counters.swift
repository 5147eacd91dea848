import Glibc
public import Primitives
public import Synchronization

/// Counters that one thread writes and any thread reads: each addition is a plain load and a plain store, without a
/// locked bus or a lock. Where several threads count the same, each has a lane of its own, and who reads adds them up.
@safe
public final class Counters: @unchecked Sendable {
    @usableFromInline let base: UnsafeMutablePointer<Atomic<Int>>
    /// Slots of a lane.
    public let width: Int
    public let lanes: Int
    @usableFromInline let stride: Int

    /// Addresses taken; pages that no counter has touched hold no memory.
    public var bytes: Int { stride * lanes * MemoryLayout<Atomic<Int>>.stride }

    /// No two lanes share a cache line, or their writers would wait for each other.
    private static let slotsOfLine = 8

    /// Memory that no counter has touched is not taken.
    public init(width: Int, lanes: Int) {
        self.width = max(1, width)
        self.lanes = max(1, lanes)
        stride = (self.width + 2 * Self.slotsOfLine - 1) / Self.slotsOfLine * Self.slotsOfLine
        guard let memory = unsafe calloc(stride * self.lanes, MemoryLayout<Atomic<Int>>.stride) else {
            preconditionFailure("out of memory")
        }
        unsafe base = memory.bindMemory(to: Atomic<Int>.self, capacity: stride * self.lanes)
    }

    deinit { unsafe free(base) }

    /// Adds to a counter. Only the lane's own thread may.
    @inlinable @inline(__always)
    public func add(_ amount: Int, to slot: Int, lane: Int) {
        precondition(UInt(bitPattern: slot) < UInt(bitPattern: width))
        precondition(UInt(bitPattern: lane) < UInt(bitPattern: lanes))
        let place = lane &* stride &+ slot
        let value = unsafe base[place].load(ordering: .relaxed)
        unsafe base[place].store(value &+ amount, ordering: .relaxed)
    }

    /// What one lane has counted.
    public func value(_ slot: Int, lane: Int) -> Int {
        precondition(slot >= 0 && slot < width && lane >= 0 && lane < lanes)
        return unsafe base[lane * stride + slot].load(ordering: .relaxed)
    }

    /// What all lanes have counted.
    public func total(_ slot: Int) -> Int {
        var sum = 0
        for lane in 0..<lanes { sum &+= value(slot, lane: lane) }
        return sum
    }
}

extension Counters {
    /// Slots that a histogram takes: its buckets, and the sum of what they hold in nanoseconds.
    @inlinable @inline(__always)
    public static var histogramWidth: Int { DurationScale.count + 1 }

    /// Counts a duration in the histogram that begins at `slot`.
    @inlinable @inline(__always)
    public func record(_ span: TimeSpan, at slot: Int, lane: Int) {
        add(1, to: slot &+ DurationScale.index(of: span), lane: lane)
        add(Int(truncatingIfNeeded: max(0, span.nanoseconds)), to: slot &+ DurationScale.count, lane: lane)
    }

    /// The histogram that begins at `slot`, over all lanes.
    public func summary(at slot: Int) -> DurationSummary {
        var summary = DurationSummary()
        for index in 0..<DurationScale.count {
            let number = total(slot + index)
            if number != 0 { summary.add(number, at: index) }
        }
        summary.add(sum: .nanoseconds(Int64(total(slot + DurationScale.count))))
        return summary
    }
}
