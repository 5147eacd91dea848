// The exact window: what one transaction says to Redis, and what its answer means.
//
//   MULTI
//   TIME                                            when this really happened
//   ZREMRANGEBYSCORE key -inf (lower(now) - window  drop what has surely left the window
//   ZADD             key +inf m1 [m2 …]             last in rank, whatever any clock says
//   ZREMRANGEBYRANK  key limit -1                   drop what exceeds the limit: all of it ours
//   ZADD             key XX CH upper(now) m1 [m2 …] the survivors get their time; says how many they are
//   ZRANGE           key -limit -limit WITHSCORES   the oldest if the window is full: when the next slot frees
//   PEXPIRE          key window and margin
//   ZCARD            key                            where clients are told what remains, or slots are kept free
//   EXEC
//
// On one server, the windows of all that leaves in one write share the `MULTI`, the `TIME` and the `EXEC`. Then there is
// another `TIME` at the end: each window's part was executed between the two.
//
// Where slots are kept free for nodes that are cut off from Redis, it asks for as many of the oldest as it has entries and
// one more, and for the count: what the server let in beyond the slots that may be filled is refused, and given back with
// the next write. The trim stays at the limit: at a lower rank it would push out what nodes have let in that know of
// nobody who is cut off. docs/decisions/cut-off.md has the reasons.
//
// A score is never before the decision's time (`upper`), and an entry is dropped only when its score surely lies a
// whole window back (`lower`), so errors of any clock can only under-admit. Where TIME shows that a bound did not hold,
// the outcome says so. A plain `ZADD key now` before the trim was rejected: a late, refused member with an older score
// pushes out an admitted one, and the slot frees early.

package import Hiredis
package import Identity
import LinuxIO
package import Primitives

/// What one transaction asks: a value, so that its answer can be read without anything else.
package struct WindowTransaction: Equatable, Sendable {
    package let subject: SubjectKey
    /// The sequence number of the first entry; the others follow.
    package let first: UInt64
    /// Entries, 1...`entriesMax`.
    package let count: Int
    /// The entries of the dearest request, where requests differ in cost; else 1.
    package let largest: Int
    /// Slots of the limit that are not filled: the shares of nodes that are cut off from Redis.
    package let keptFree: Int
    package let sentAt: MonotonicTime
    /// What the server's clock surely reads at least when this is executed.
    package let lower: RedisTime
    /// What survivors are scored with: what the server's clock reads at most.
    package let score: RedisTime

    /// Entries of one transaction. It bounds how long Redis is busy with one of them (half a millisecond) and how much
    /// has to be remembered about it; more requests of a subject make more transactions in the same write.
    package static let entriesMax = 256
    /// More entries than any set holds: who says so is out of step.
    private static let entriesKnown: Int64 = 1 << 48
    /// Commands between `MULTI` and `EXEC`, without the one that tells what remains.
    package static let commandCount = 7
    /// How long a key outlives its window. Redis expires keys by its own clock: one that is set forward by less than this
    /// takes no window away. (A second was too little: a step by three emptied all windows of a second.)
    private static let expiryMargin = TimeSpan.seconds(10)

    package init(
        _ subject: SubjectKey, first: UInt64, count: Int, largest: Int = 1, keptFree: Int = 0, clock: ServerClock,
        at now: MonotonicTime
    ) {
        precondition((1...Self.entriesMax).contains(count))
        self.init(
            subject, first: first, count: count, largest: largest, keptFree: keptFree, sentAt: now,
            lower: clock.lower(at: now), score: clock.upper(at: now))
    }

    init(
        _ subject: SubjectKey, first: UInt64, count: Int, largest: Int = 1, keptFree: Int = 0, sentAt: MonotonicTime,
        lower: RedisTime, score: RedisTime
    ) {
        self.subject = subject
        self.first = first
        self.count = count
        self.largest = largest
        self.keptFree = keptFree
        self.sentAt = sentAt
        self.lower = lower
        self.score = score
    }

    /// Commands of this transaction, without the one that tells what remains.
    var ownCommandCount: Int { largest > 1 ? Self.commandCount + 1 : Self.commandCount }

    /// Writes the commands between `MULTI` and `EXEC`.
    ///
    /// - Parameter hasTime: whether `TIME` stands before them already.
    package func write(
        _ key: WindowKey, _ names: MemberNames, hasTime: Bool = false, to writer: inout CommandWriter
    ) {
        let policy = key.policy
        if !hasTime { writer.time() }
        writer.add("ZREMRANGEBYSCORE")
        writer.add { key.write(subject, to: &$0) }
        writer.add("-inf")
        // Exclusive: TIME is cut off to the microsecond that has begun.
        let horizon = lower - policy.window
        writer.add { buffer in
            buffer.append(UInt8(ascii: "("))
            buffer.append(decimal: Int(horizon.microseconds))
        }
        writer.end()
        writer.add("ZADD")
        writer.add { key.write(subject, to: &$0) }
        for offset in 0..<UInt64(count) {
            writer.add("+inf")
            writer.add { names.write(first &+ offset, to: &$0) }
        }
        writer.end()
        writer.add("ZREMRANGEBYRANK")
        writer.add { key.write(subject, to: &$0) }
        writer.add(Int64(policy.limit))
        writer.add("-1")
        writer.end()
        writer.add("ZADD")
        writer.add { key.write(subject, to: &$0) }
        writer.add("XX")
        writer.add("CH")
        for offset in 0..<UInt64(count) {
            writer.add(score.microseconds)
            writer.add { names.write(first &+ offset, to: &$0) }
        }
        writer.end()
        let slots = policy.limit - keptFree
        writer.add("ZRANGE")
        writer.add { key.write(subject, to: &$0) }
        // Of these entries some may be given back: the oldest of the others is so many places before.
        writer.add(-Int64(keptFree > 0 ? slots + count : slots))
        writer.add(-Int64(slots))
        writer.add("WITHSCORES")
        writer.end()
        if largest > 1 {
            // When so many slots are free as the dearest takes.
            writer.add("ZRANGE")
            writer.add { key.write(subject, to: &$0) }
            writer.add(Int64(largest - 1 - slots))
            writer.add(Int64(largest - 1 - slots))
            writer.add("WITHSCORES")
            writer.end()
        }
        Self.writeExpiry(key, subject, to: &writer)
        guard key.tellsRemaining || keptFree > 0 else { return }
        writer.add("ZCARD")
        writer.add { key.write(subject, to: &$0) }
        writer.end()
    }

    /// Writes the command that keeps what was added to a window from making it fuller than full. The trim of a decision
    /// takes out whatever ranks beyond the limit, and must find nothing there but its own. The oldest go: the latest count
    /// for longest, so whoever was let in is still counted, by an entry of its own or by one that leaves later.
    static func writeOldestOut(_ key: WindowKey, _ subject: SubjectKey, to writer: inout CommandWriter) {
        writer.add("ZREMRANGEBYRANK")
        writer.add { key.write(subject, to: &$0) }
        writer.add("0")
        writer.add(-Int64(key.policy.limit) - 1)
        writer.end()
    }

    /// Writes the command that gives a key its time to live. Counted from the latest transaction on the key, so it
    /// outlives every entry.
    package static func writeExpiry(_ key: WindowKey, _ subject: SubjectKey, to writer: inout CommandWriter) {
        writer.add("PEXPIRE")
        writer.add { key.write(subject, to: &$0) }
        writer.add((key.policy.window + expiryMargin).milliseconds)
        writer.end()
    }
}

/// When a window's part of a transaction was executed: not before the `TIME` in front of it, and not after the one behind
/// it, where it shares the transaction with others.
struct ExecutionTimes {
    let from: RedisTime
    let until: RedisTime
    /// Values of the answer that are the `TIME` at its end.
    let nodesAtEnd: Int

    /// - Parameter elements: of the answer, without a `TIME` at its end.
    init?(_ reply: Reply, elements: Int) {
        guard let count = reply.elementCount(0), count == elements || count == elements + 1,
            let from = Self.time(reply, at: 1)
        else { return nil }
        self.from = from
        guard count > elements else {
            until = from
            nodesAtEnd = 0
            return
        }
        guard let until = Self.time(reply, at: reply.count - 3) else { return nil }
        // A clock that was set back meanwhile.
        self.until = max(from, until)
        nodesAtEnd = 3
    }

    private static func time(_ reply: Reply, at index: Int) -> RedisTime? {
        guard reply.elementCount(index) == 2, let seconds = reply.integer(index + 1), seconds >= 0,
            let microseconds = reply.integer(index + 2), (0..<1_000_000).contains(microseconds)
        else { return nil }
        return RedisTime(microseconds: saturatingAdd(saturatingMultiply(seconds, 1_000_000), microseconds))
    }
}

/// What a transaction's answer means.
package enum WindowOutcome: Equatable, Sendable {
    case decided(WindowDecision)
    /// A command failed: nothing is known of the entries.
    case failed(String)
    /// The answer is not of this transaction's shape: whose it is, nobody knows.
    case malformed
}

package struct WindowDecision: Equatable, Sendable {
    /// Whether the clock's bounds held.
    package enum Timing: Equatable, Sendable {
        case withinBounds
        /// Executed later than the survivors' score says: they could be dropped too early. Confirm them first.
        case late
        /// Executed earlier than `lower` said: entries that were still in the window may have been dropped. Only a
        /// clock that was set back does this. Decide again.
        case early
    }

    /// What should not be there.
    package enum Anomaly: Equatable, Sendable {
        /// So many of the names existed before: another process uses this one's boot value.
        case namesTaken(Int)
        /// Entries at infinity that are not ours: a transaction was broken off midway.
        case leftovers
        /// Entries too far ahead of the server's clock: it was set back. They would block the subject.
        case entriesFromTheFuture
    }

    /// The first so many entries are in.
    package var admitted: Int
    /// So many the server let in. Those beyond `admitted` have slots that are kept free, and must be given back.
    package var kept: Int
    /// When it was executed, by the server's clock.
    package var time: RedisTime
    /// The score of the oldest entry where the window is full now; `nil` where it has room.
    package var fullSince: RedisTime?
    /// The score of the entry whose leaving makes room for the dearest request, where requests differ in cost.
    package var roomSince: RedisTime?
    package var timing: Timing
    package var anomaly: Anomaly?
    /// Entries in the window then, where that was asked.
    package var count: Int?

    package init(
        admitted: Int, time: RedisTime, fullSince: RedisTime? = nil, timing: Timing = .withinBounds,
        anomaly: Anomaly? = nil
    ) {
        self.admitted = admitted
        kept = admitted
        self.time = time
        self.fullSince = fullSince
        self.timing = timing
        self.anomaly = anomaly
    }
}

extension WindowTransaction {
    /// Reads what `EXEC` answered.
    ///
    /// - Parameters:
    ///   - limit: slots in a window.
    ///   - aheadMax: how far ahead of the server's clock an entry can be that was scored in good faith.
    package func interpret(
        _ reply: Reply, limit: Int, aheadMax: TimeSpan, tellsRemaining: Bool = false
    ) -> WindowOutcome {
        // Of a part, [2] seconds microseconds once more at the end.
        // [7] [2] seconds microseconds · dropped · added · trimmed · scored · [0 or 2] oldest, its score; of several the
        // younger follow · [0 or 2] the same of who makes room for the dearest · expiry · count
        let tellsCount = tellsRemaining || keptFree > 0
        let extra = tellsCount ? 1 : 0
        let rangeMax = keptFree > 0 ? 2 * (count + 1) : 2
        if let error = reply.firstError { return .failed(error) }
        guard let times = ExecutionTimes(reply, elements: ownCommandCount + extra), reply.isInteger(4),
            reply.isInteger(5), let added = reply.integer(5), (0...Int64(count)).contains(added),
            reply.isInteger(6), let trimmed = reply.integer(6), trimmed >= 0,
            reply.isInteger(7), let scored = reply.integer(7), scored >= 0, scored <= Int64(count),
            let range = reply.elementCount(8), range % 2 == 0, range <= rangeMax,
            let more = largest > 1 ? reply.elementCount(9 + range).map({ $0 + 1 }) : 0, more == 0 || more % 2 == 1,
            more <= 3,
            reply.isInteger(9 + range + more), reply.count - times.nodesAtEnd == 10 + range + more + extra,
            !tellsCount || reply.isInteger(10 + range + more),
            let taken = tellsCount ? reply.integer(10 + range + more) : 0, (0...Self.entriesKnown).contains(taken)
        else { return .malformed }
        let time = times.until
        var decision = WindowDecision(admitted: Int(scored), time: time)
        if tellsCount { decision.count = Int(taken) }
        if keptFree > 0 {
            keepFree(&decision, reply, range: range, limit: limit)
        } else if range == 2 {
            decision.fullSince = Self.time(ofScore: reply, 10) ?? time
        }
        if more == 3 { decision.roomSince = Self.time(ofScore: reply, 11 + range) }
        if time > score { decision.timing = .late }
        if times.from < lower { decision.timing = .early }
        if added != Int64(count) {
            // Entries that were there before are another's, or admitted before: none of these is let in by them.
            decision.anomaly = .namesTaken(Int(clamping: saturatingSubtract(Int64(count), added)))
            decision.admitted = 0
            decision.kept = 0
        } else if scored != max(0, Int64(count) - trimmed) {
            decision.anomaly = .leftovers
        } else if let oldest = decision.fullSince, oldest - time > aheadMax {
            decision.anomaly = .entriesFromTheFuture
        }
        return .decided(decision)
    }

    /// Refuses what has slots that are kept free, and finds whose leaving makes room again.
    private func keepFree(_ decision: inout WindowDecision, _ reply: Reply, range: Int, limit: Int) {
        let slots = limit - keptFree
        let others = max(0, (decision.count ?? 0) - decision.kept)
        decision.admitted = max(0, min(decision.kept, slots - others))
        guard others + decision.admitted >= slots, range > 0 else { return }
        // The last of the range is as many places from the youngest as may be filled; those that are given back stand
        // behind it. Whose clocks run ahead may be younger still: then one of these could be taken for an old one.
        let last = range / 2 - 1
        let oldest = Self.time(ofScore: reply, 10 + 2 * max(0, last - (decision.kept - decision.admitted)))
        let youngest = Self.time(ofScore: reply, 10 + 2 * last)
        decision.fullSince = (oldest == score ? youngest : oldest) ?? decision.time
    }

    /// A score as a time; `nil` for infinities and what is no whole number.
    private static func time(ofScore reply: Reply, _ index: Int) -> RedisTime? {
        reply.integer(index).map { RedisTime(microseconds: $0) }
    }
}
