// A window of bounded size: a count for each hundredth of it in place of an entry for each request.
//
//   MULTI
//   TIME                              when this really happened
//   ZADD    key INCR k BUCKET         reserves k slots in the bucket of now, whose name is the time at which it ends
//   ZRANGE  key 0 -1 WITHSCORES       all buckets: at most about a hundred
//   PEXPIRE key window and margin
//   EXEC
//
// A transaction cannot decide by a sum without a script. So the slots are reserved first, and the node that reserved
// them reads in the same transaction what all buckets hold: what goes beyond the limit is refused, and given back with
// the next write. docs/decisions/buckets.md proves that this never admits too much.

package import Hiredis
package import Identity
import LinuxIO
package import Primitives

/// What a reservation's answer means.
package struct BucketDecision: Equatable, Sendable {
    /// How many of the slots that were reserved are admitted: the first ones.
    package var admitted: Int
    package var time: RedisTime
    /// Slots taken when what is refused has been given back.
    package var taken: Int
    /// Executed after its bucket had ended: it would leave the window too early.
    package var isLate = false
    /// When the first counted bucket leaves the window.
    package var changesAt: RedisTime?
    /// When there is room for what was asked for; `nil` where there is room now.
    package var freesAt: RedisTime?
    /// Buckets that have left: the name of the first, and how many there can be up to the last.
    package var expired: (first: UInt64, count: Int) = (0, 0)
    /// Those that end too far ahead of what time it is: the server's clock was set back.
    package var future: (first: UInt64, count: Int) = (0, 0)

    package static func == (left: BucketDecision, right: BucketDecision) -> Bool {
        left.admitted == right.admitted && left.time == right.time && left.taken == right.taken
            && left.isLate == right.isLate && left.changesAt == right.changesAt && left.freesAt == right.freesAt
            && left.expired == right.expired && left.future == right.future
    }
}

package enum BucketOutcome: Equatable, Sendable {
    case decided(BucketDecision)
    /// A command failed: nothing is known of the reservation.
    case failed(String)
    /// The answer is not of this transaction's shape.
    case malformed
}

/// How a window is divided.
package struct Buckets: Equatable, Sendable {
    /// In microseconds.
    let window: Int64
    let span: Int64

    /// So many in a window: an admission counts for up to a hundredth of the window longer than in an exact one.
    package static let perWindow: Int64 = 100
    /// Commands between `MULTI` and `EXEC`.
    package static let commandCount = 4
    /// Slots that are reserved at once. More requests make more transactions in the same write.
    package static let reservedMax = 4_096
    /// Buckets dropped by one command.
    package static let droppedMax = 256

    package init(window: TimeSpan) {
        self.window = max(1, window.nanoseconds / 1_000)
        span = max(1, (self.window + Self.perWindow - 1) / Self.perWindow)
    }

    /// The bucket of a time: its name is the time at which it ends, which is later.
    package func bucket(of time: RedisTime) -> UInt64 {
        UInt64(max(0, saturatingMultiply(time.microseconds / span + 1, span)))
    }

    static func writeName(_ bucket: UInt64, to buffer: inout ByteBuffer) {
        buffer.append(decimal: Int(clamping: bucket))
    }

    /// Writes the commands between `MULTI` and `EXEC`.
    ///
    /// - Parameter hasTime: whether `TIME` stands before them already.
    package func write(
        _ transaction: WindowTransaction, _ key: WindowKey, hasTime: Bool = false, to writer: inout CommandWriter
    ) {
        if !hasTime { writer.time() }
        writeCount(transaction.subject, key, bucket: transaction.first, by: Int64(transaction.count), to: &writer)
        writer.add("ZRANGE")
        writer.add { key.write(transaction.subject, to: &$0) }
        writer.add("0")
        writer.add("-1")
        writer.add("WITHSCORES")
        writer.end()
        WindowTransaction.writeExpiry(key, transaction.subject, to: &writer)
    }

    /// Writes the command that adds to a bucket's count, or takes off one that is there.
    func writeCount(
        _ subject: SubjectKey, _ key: WindowKey, bucket: UInt64, by count: Int64, to writer: inout CommandWriter
    ) {
        writer.add("ZADD")
        writer.add { key.write(subject, to: &$0) }
        // A bucket that is gone must not come back with less than nothing in it.
        if count < 0 { writer.add("XX") }
        writer.add("INCR")
        writer.add(count)
        writer.add { Self.writeName(bucket, to: &$0) }
        writer.end()
    }

    func writeSweep(
        _ subject: SubjectKey, _ key: WindowKey, first: UInt64, count: Int, to writer: inout CommandWriter
    ) {
        writer.add("ZREM")
        writer.add { key.write(subject, to: &$0) }
        for index in 0..<UInt64(count) { writer.add { Self.writeName(first &+ index &* UInt64(span), to: &$0) } }
        writer.end()
    }

    /// Reads what `EXEC` answered.
    ///
    /// - Parameters:
    ///   - limit: slots in a window.
    ///   - room: slots that the dearest request takes, to say when there is room for it.
    ///   - aheadMax: how far ahead of the server's clock a bucket can end that was named in good faith.
    package func interpret(
        _ reply: Reply, of transaction: WindowTransaction, limit: Int, room: Int, aheadMax: TimeSpan
    ) -> BucketOutcome {
        // [4] [2] seconds microseconds · this bucket's count · [2n] name, count … · expiry
        if let error = reply.firstError { return .failed(error) }
        guard let times = ExecutionTimes(reply, elements: Self.commandCount), reply.integer(4) != nil,
            let size = reply.elementCount(5), size >= 2, size % 2 == 0,
            reply.count - times.nodesAtEnd == 7 + size, reply.isInteger(6 + size)
        else { return .malformed }
        let time = times.until.microseconds
        var sum: Int64 = 0
        var isOursThere = false
        var decision = BucketDecision(admitted: 0, time: RedisTime(microseconds: time), taken: 0)
        var expired = Run()
        var future = Run()
        var first: Int64 = .max
        // A clock that was just set forward has not brought the end of a window any nearer.
        let sure = min(times.from.microseconds, transaction.lower.microseconds)
        for index in stride(from: 6, to: 6 + size, by: 2) {
            guard let end = reply.integer(index), let count = reply.integer(index + 1) else {
                // As wrong as a key of another type, and for this one window alone.
                return .failed("WRONGTYPE one of its members, or its score, is no whole number")
            }
            if UInt64(clamping: end) == transaction.first { isOursThere = true }
            if saturatingAdd(end, window) < sure {
                expired.add(end)
                continue
            }
            if saturatingSubtract(end, time) > saturatingAdd(aheadMax.nanoseconds / 1_000, 2 * span) { future.add(end) }
            sum = saturatingAdd(sum, max(0, count))
            if count > 0 { first = min(first, end) }
        }
        guard isOursThere else { return .malformed }
        decision.expired = expired.names(span)
        decision.future = future.names(span)
        let ours = Int64(transaction.count)
        let before = saturatingSubtract(sum, ours)
        let admitted = max(0, min(ours, saturatingSubtract(Int64(limit), before)))
        decision.admitted = Int(admitted)
        decision.taken = Int(clamping: saturatingAdd(before, admitted))
        if time > Int64(clamping: transaction.first) { decision.isLate = true }
        if first < .max { decision.changesAt = RedisTime(microseconds: saturatingAdd(first, window)) }
        let free = Int64(limit) - Int64(decision.taken)
        decision.freesAt = roomAt(reply, size: size, time: sure, wanted: Int64(room) - free)
        return .decided(decision)
    }

    /// From the first bucket of a kind to the last.
    private struct Run {
        var first: Int64 = .max
        var last: Int64 = .min

        mutating func add(_ end: Int64) {
            first = min(first, end)
            last = max(last, end)
        }

        func names(_ span: Int64) -> (first: UInt64, count: Int) {
            guard first <= last, first >= 0 else { return (0, 0) }
            return (UInt64(clamping: first), Int(min((last - first) / span + 1, Int64(Buckets.droppedMax))))
        }
    }

    /// When so many slots have left. A few dozen buckets are gone through once for each that has to leave.
    private func roomAt(_ reply: Reply, size: Int, time: Int64, wanted: Int64) -> RedisTime? {
        guard wanted > 0 else { return nil }
        var last: Int64 = .min
        var freed: Int64 = 0
        while freed < wanted {
            var next: Int64 = .max
            var count: Int64 = 0
            for index in stride(from: 6, to: 6 + size, by: 2) {
                guard let end = reply.integer(index), end > last, end < next, saturatingAdd(end, window) >= time else {
                    continue
                }
                next = end
                count = max(0, reply.integer(index + 1) ?? 0)
            }
            guard next < .max else { break }
            last = next
            freed = saturatingAdd(freed, count)
        }
        return last == .min ? nil : RedisTime(microseconds: saturatingAdd(last, window))
    }
}

extension WindowTransaction {
    /// A reservation in the bucket of the latest time at which it may be executed.
    package init(
        _ subject: SubjectKey, in buckets: Buckets, count: Int, keptFree: Int = 0, clock: ServerClock,
        at now: MonotonicTime
    ) {
        precondition((1...Buckets.reservedMax).contains(count))
        let score = clock.upper(at: now)
        self.init(
            subject, first: buckets.bucket(of: score), count: count, keptFree: keptFree, sentAt: now,
            lower: clock.lower(at: now), score: score)
    }
}
