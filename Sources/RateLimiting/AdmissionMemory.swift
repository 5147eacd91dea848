// What this node admitted in the last window, by subject: its own part of the budget when Redis is gone.

package import Identity
package import Primitives
import Synchronization

/// The admissions of one subject over the last window, in at most 128 groups. A group carries the time of its latest
/// admission and leaves the window whole, so the count can only be too high: the memory never over-admits.
package struct RecentAdmissions: Sendable {
    private struct Group: Sendable {
        var began: MonotonicTime
        var latest: MonotonicTime
        var count: Int
    }

    private var groups: [Group] = []
    private var first = 0
    private var total = 0
    private static let groupsPerWindow: Int64 = 128

    package init() {}

    private mutating func forget(at now: MonotonicTime, _ window: TimeSpan) {
        while first < groups.count, now - groups[first].latest >= window {
            total -= groups[first].count
            first += 1
        }
        if first == groups.count {
            groups.removeAll(keepingCapacity: true)
            first = 0
        } else if first > 64 {
            groups.removeFirst(first)
            first = 0
        }
    }

    package mutating func record(_ count: Int, at now: MonotonicTime, window: TimeSpan) {
        forget(at: now, window)
        total += count
        let span = TimeSpan(nanoseconds: window.nanoseconds / Self.groupsPerWindow)
        if let last = groups.indices.last, last >= first, now - groups[last].began < span {
            groups[last].latest = now
            groups[last].count += count
            return
        }
        groups.append(Group(began: now, latest: now, count: count))
    }

    /// Admits one while fewer than `share` are remembered.
    package mutating func admit(share: Int, at now: MonotonicTime, window: TimeSpan) -> Verdict {
        forget(at: now, window)
        if total < share {
            record(1, at: now, window: window)
            return .admit
        }
        guard first < groups.count else { return .refuse(retryAfter: window) }
        return .refuse(retryAfter: groups[first].latest + window - now)
    }

    fileprivate func newest() -> MonotonicTime { groups.last?.latest ?? MonotonicTime(nanoseconds: .min) }
}

/// The admissions of all subjects, shared by the workers of a node.
package final class AdmissionMemory: Sendable {
    private final class Shard: Sendable {
        let table: Mutex<SubjectTable<RecentAdmissions>>
        init(seed: UInt64) { table = Mutex(SubjectTable(countMax: AdmissionMemory.subjectsMax / 64, seed: seed)) }
    }

    private let shards: [Shard]
    private let window: TimeSpan
    private let seed: UInt64
    /// Where the table is full, a subject is not remembered: then it has a whole share in a loss, not less.
    private static let subjectsMax = 1 << 18

    package init(window: TimeSpan, seed: UInt64) {
        self.window = window
        self.seed = seed
        shards = (0..<64).map { Shard(seed: seed &+ UInt64($0)) }
    }

    private func shard(_ subject: SubjectKey) -> Shard {
        shards[Int(truncatingIfNeeded: subject.hash(seed: ~seed) >> 58)]
    }

    /// Notes what Redis admitted by this node.
    package func record(_ count: Int, of subject: SubjectKey, at now: MonotonicTime) {
        shard(subject).table.withLock { table in
            table.sweep(steps: 2) { now - $0.newest() >= window }
            guard let place = table.find(subject) ?? table.insert(subject, RecentAdmissions()) else { return }
            table[place].record(count, at: now, window: window)
        }
    }

    /// Decides by this node's memory alone.
    package func admit(_ subject: SubjectKey, share: Int, at now: MonotonicTime) -> Verdict {
        shard(subject).table.withLock { table in
            table.sweep(steps: 2) { now - $0.newest() >= window }
            guard let place = table.find(subject) ?? table.insert(subject, RecentAdmissions()) else {
                return .refuse(retryAfter: window)
            }
            return table[place].admit(share: share, at: now, window: window)
        }
    }
}
