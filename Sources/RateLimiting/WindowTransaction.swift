// The exact window: what one transaction says to Redis, and what its answer means.
//
//   MULTI
//   TIME                                            when this really happened
//   ZREMRANGEBYSCORE key -inf (lower(now) - window  drop what has surely left the window
//   ZADD             key +inf m1 [m2 …]             last in rank, whatever any clock says
//   ZREMRANGEBYRANK  key limit -1                   drop what exceeds the limit: all of it ours
//   ZADD             key XX upper(now) m1 [m2 …]    the survivors get their time
//   ZRANGE           key 0 0 WITHSCORES             the oldest: when the next slot frees
//   PEXPIRE          key window and margin
//   EXEC
//
// A score is never before the decision's time (`upper`), and an entry is dropped only when its score surely lies a
// whole window back (`lower`): errors of any clock can only under-admit.

package import Hiredis
package import Identity
package import LinuxIO
package import Primitives
package import RedisClient

/// Names of the entries of one worker: `boot-worker-sequence`, the sequence of a fixed width, so that among entries of
/// equal score rank is the order of arrival. The boot value is random: a restarted node that used a name again would
/// only move the old entry, and admit once more.
package struct MemberNames: Sendable {
    private let prefix: [UInt8]
    package private(set) var next: UInt64 = 0

    package init(boot: UInt64, worker: Int) {
        let digits = String(boot, radix: 16)
        let padded = String(repeating: "0", count: 16 - digits.count) + digits
        prefix = Array("\(padded)-\(worker)-".utf8)
    }

    /// Takes `count` names in a row; returns the first one's sequence number.
    package mutating func take(_ count: Int) -> UInt64 {
        let first = next
        next &+= UInt64(count)
        return first
    }

    package func write(_ sequence: UInt64, to buffer: inout ByteBuffer) {
        buffer.append(prefix.span)
        buffer.append(hexadecimal: sequence, width: 12)
    }
}

/// A policy's part of every transaction.
package struct WindowKey: Sendable {
    package let policy: Policy
    private let prefix: [UInt8]

    package init(_ policy: Policy) {
        self.policy = policy
        prefix = Array(policy.keyPrefix.utf8)
    }

    package func write(_ subject: SubjectKey, to buffer: inout ByteBuffer) {
        buffer.append(prefix.span)
        buffer.append("ip:")
        buffer.append(subject.address)
        if subject.address.family == .v6 { buffer.append("/64") }
    }
}

/// What a transaction's answer means.
package enum WindowOutcome: Equatable, Sendable {
    /// The first `admitted` entries are in. `oldest` is the score of the oldest entry, `time` when it was decided.
    case decided(admitted: Int, time: RedisTime, oldest: RedisTime?)
    /// The answer is not of this transaction's shape, or a name was there already.
    case malformed(String)
}

package enum WindowTransaction {
    /// Entries of one transaction: an argument list of 16 KiB, and a bound on how long Redis is busy with one subject.
    package static let entriesMax = 512
    /// How long a key outlives its window, for clocks to disagree.
    private static let expiryMargin = TimeSpan.seconds(1)

    /// Writes the transaction for `count` requests of a subject. Returns the score that survivors get.
    package static func write(
        _ key: WindowKey, _ subject: SubjectKey, names: MemberNames, first: UInt64, count: Int, clock: ServerClock,
        now: MonotonicTime, to connection: RedisConnection
    ) -> RedisTime {
        let policy = key.policy
        let score = clock.upper(at: now)
        let horizon = clock.lower(at: now) - policy.window
        connection.beginTransaction()
        connection.write { $0.add("TIME") }
        connection.write { writer in
            writer.add("ZREMRANGEBYSCORE")
            writer.add { key.write(subject, to: &$0) }
            writer.add("-inf")
            writer.add { buffer in
                buffer.append(UInt8(ascii: "("))
                buffer.append(decimal: Int(horizon.microseconds))
            }
        }
        connection.write { writer in
            writer.add("ZADD")
            writer.add { key.write(subject, to: &$0) }
            for sequence in first..<(first + UInt64(count)) {
                writer.add("+inf")
                writer.add { names.write(sequence, to: &$0) }
            }
        }
        connection.write { writer in
            writer.add("ZREMRANGEBYRANK")
            writer.add { key.write(subject, to: &$0) }
            writer.add(Int64(policy.limit))
            writer.add("-1")
        }
        connection.write { writer in
            writer.add("ZADD")
            writer.add { key.write(subject, to: &$0) }
            writer.add("XX")
            for sequence in first..<(first + UInt64(count)) {
                writer.add(score.microseconds)
                writer.add { names.write(sequence, to: &$0) }
            }
        }
        connection.write { writer in
            writer.add("ZRANGE")
            writer.add { key.write(subject, to: &$0) }
            writer.add("0")
            writer.add("0")
            writer.add("WITHSCORES")
        }
        connection.write { writer in
            writer.add("PEXPIRE")
            writer.add { key.write(subject, to: &$0) }
            writer.add((policy.window + expiryMargin).milliseconds)
        }
        return score
    }

    /// Reads the answer to a transaction of `count` entries.
    package static func interpret(_ reply: Reply, count: Int) -> WindowOutcome {
        // Array(7) Array(2) seconds micros removed added trimmed moved Array(n) [member score] expiry
        for index in reply.nodes.indices where reply.kind(index) == .error { return .malformed(reply.text(index)) }
        guard reply.kind(0) == .array, reply.nodes[0].number == 7, reply.kind(1) == .array, reply.nodes[1].number == 2,
            let seconds = reply.integer(2), let micros = reply.integer(3), reply.kind(4) == .integer,
            let added = reply.integer(5), let trimmed = reply.integer(6), reply.kind(7) == .integer,
            reply.kind(8) == .array
        else { return .malformed("an answer of another shape") }
        guard added == Int64(count) else { return .malformed("\(Int64(count) - added) of \(count) entries were there already") }
        let time = RedisTime(microseconds: saturatingAdd(saturatingMultiply(seconds, 1_000_000), micros))
        var oldest: RedisTime?
        if reply.nodes[8].number == 2 {
            guard let score = Double(reply.text(10)) else { return .malformed("a score that is no number") }
            // Leftovers at infinity, from a transaction that failed midway, have no time.
            if score.isFinite, score > 0, score < 9e15 { oldest = RedisTime(microseconds: Int64(score)) }
        }
        return .decided(admitted: max(0, count - Int(clamping: trimmed)), time: time, oldest: oldest)
    }
}
