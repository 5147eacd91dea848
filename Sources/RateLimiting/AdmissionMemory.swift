// What this node admitted in the last window, by subject: its own part of the budget when Redis is gone.

package import Identity
package import Primitives
import Synchronization

/// How finely admissions are remembered.
package enum MemoryGrain: Sendable {
    /// 128 groups a window: what a node can keep of all its clients.
    case coarse
    /// Each moment by itself, as the exact window in Redis.
    case exact
    /// Hundredths of the window, each of which counts until a window after its end, as the buckets in Redis.
    case buckets
}

/// Recent admissions of many subjects.
///
/// Each subject has at most 128 groups. A group carries the time of its latest admission and leaves the window whole,
/// so a count can only be too high: the memory never over-admits. All groups live in one pool, so that a subject that
/// comes and goes costs no allocation.
package struct RecentAdmissions: Sendable {
    private struct Group: Sendable {
        var latest: MonotonicTime
        var count: Int32
        /// The next younger group, or the next free one; -1 for none.
        var next: Int32
    }

    private struct Subject: Sendable {
        var oldest: Int32 = -1
        var youngest: Int32 = -1
        var groups: Int32 = 0
        var total = 0
    }

    private var table: SubjectTable<Subject>
    private var pool: [Group] = []
    private var firstFree: Int32 = -1
    private let groupsMax: Int
    private let window: TimeSpan
    /// How long an admission counts. A node's own leaves as it would in Redis, whose time is cut off to the microsecond
    /// that has begun: when it is older than the window by one. The times of a log are what they say.
    private let stay: TimeSpan
    private let groupSpan: Int64
    private let groupsPerSubject: Int64
    /// Whether a group carries the time of its end.
    private let hasEnds: Bool
    /// Subjects forgotten while they still had admissions in the window, for lack of room.
    package private(set) var evictions = 0

    private static let coarseGroups: Int64 = 128

    package init(
        window: TimeSpan, subjectsMax: Int, groupsMax: Int, seed: UInt64, grain: MemoryGrain = .coarse
    ) {
        self.window = window
        stay = grain == .coarse ? window + .microseconds(1) : window
        self.groupsMax = max(1, min(groupsMax, Int(Int32.max)))
        hasEnds = grain == .buckets
        switch grain {
        case .coarse:
            (groupSpan, groupsPerSubject) = (max(1, window.nanoseconds / Self.coarseGroups), Self.coarseGroups)
        case .exact: (groupSpan, groupsPerSubject) = (1, .max)
        case .buckets: (groupSpan, groupsPerSubject) = (saturatingMultiply(Buckets(window: window).span, 1_000), .max)
        }
        table = SubjectTable(countMax: max(1, subjectsMax), seed: seed)
    }

    package var subjectCount: Int { table.count }
    package var bytes: Int { table.bytes + pool.capacity * MemoryLayout<Group>.stride }

    /// Notes admissions.
    package mutating func record(_ count: Int, of subject: SubjectKey, at now: MonotonicTime) {
        guard count > 0 else { return }
        let place = enter(subject, at: now)
        var state = table[place]
        add(count, to: &state, at: now)
        table[place] = state
    }

    /// Admits one request while no more than `share` are remembered with it.
    package mutating func admit(_ subject: SubjectKey, cost: Int = 1, share: Int, at now: MonotonicTime) -> Verdict {
        let place = enter(subject, at: now)
        var state = table[place]
        guard state.total + cost > share else {
            add(cost, to: &state, at: now)
            table[place] = state
            return .admit(remaining: share - state.total)
        }
        guard state.oldest >= 0 else { return .refuse(retryAfter: window) }
        // What costs more may have to wait for more than the oldest: for the youngest at the most.
        let last = cost == 1 ? state.oldest : state.youngest
        // Who was refused at the very moment of the admission comes back later than a microsecond after what it is told.
        return .refuse(retryAfter: min(window, max(.nanoseconds(1), pool[Int(last)].latest + stay - now)))
    }

    /// Takes back the last admission: another policy has refused the request.
    package mutating func takeBack(_ subject: SubjectKey, cost: Int = 1) {
        guard let place = table.find(subject) else { return }
        var state = table[place]
        guard state.youngest >= 0 else { return }
        let count = min(cost, Int(pool[Int(state.youngest)].count))
        pool[Int(state.youngest)].count -= Int32(clamping: count)
        state.total -= count
        table[place] = state
    }

    /// What each has been admitted in the window.
    package func visit(at now: MonotonicTime, _ body: (SubjectKey, Int) -> Void) {
        table.visit { subject, state in
            var total = state.total
            var group = state.oldest
            while group >= 0, now - pool[Int(group)].latest >= stay {
                total -= Int(pool[Int(group)].count)
                group = pool[Int(group)].next
            }
            if total > 0 { body(subject, total) }
        }
    }

    /// The place of a subject, of whom nothing is left that is older than the window.
    private mutating func enter(_ subject: SubjectKey, at now: MonotonicTime) -> Int {
        sweep(1, at: now)
        guard let place = table.find(subject) else {
            // A table is at most half full: this looks at two subjects for each that comes in.
            sweep(4, at: now)
            // And this makes room for all the groups that the subject can need at once.
            while !hasRoom, table.count > 0 { evict() }
            if table.isFull { evict() }
            guard let place = table.insert(subject, Subject()) else { preconditionFailure("no room after an eviction") }
            return place
        }
        var state = table[place]
        guard state.oldest >= 0, now - pool[Int(state.oldest)].latest >= stay else { return place }
        while state.oldest >= 0, now - pool[Int(state.oldest)].latest >= stay {
            let group = state.oldest
            state.total -= Int(pool[Int(group)].count)
            state.oldest = pool[Int(group)].next
            state.groups -= 1
            release(group)
        }
        table[place] = state.oldest < 0 ? Subject() : state
        return place
    }

    private mutating func add(_ count: Int, to state: inout Subject, at time: MonotonicTime) {
        let now = hasEnds ? MonotonicTime(nanoseconds: (time.nanoseconds / groupSpan + 1) * groupSpan) : time
        state.total += count
        if state.youngest >= 0 {
            let group = Int(state.youngest)
            let isSame = pool[group].latest.nanoseconds / groupSpan == now.nanoseconds / groupSpan
            if isSame || Int64(state.groups) >= groupsPerSubject || !hasRoom {
                // Workers' clocks are read at different moments: time never goes back here.
                pool[group].latest = max(pool[group].latest, now)
                pool[group].count = Int32(clamping: Int(pool[group].count) + count)
                return
            }
        }
        let group = takeGroup()
        pool[Int(group)] = Group(latest: now, count: Int32(clamping: count), next: -1)
        if state.youngest >= 0 { pool[Int(state.youngest)].next = group } else { state.oldest = group }
        state.youngest = group
        state.groups += 1
    }

    private var hasRoom: Bool { firstFree >= 0 || pool.count < groupsMax }

    private mutating func takeGroup() -> Int32 {
        if firstFree >= 0 {
            let group = firstFree
            firstFree = pool[Int(group)].next
            return group
        }
        pool.append(Group(latest: MonotonicTime(nanoseconds: 0), count: 0, next: -1))
        return Int32(clamping: pool.count - 1)
    }

    private mutating func release(_ group: Int32) {
        pool[Int(group)].next = firstFree
        firstFree = group
    }

    private mutating func release(_ state: Subject) {
        guard state.oldest >= 0 else { return }
        pool[Int(state.youngest)].next = firstFree
        firstFree = state.oldest
    }

    private mutating func evict() {
        guard let state = table.evict() else { return }
        if state.total > 0 { evictions += 1 }
        release(state)
    }

    private mutating func sweep(_ steps: Int, at now: MonotonicTime) {
        for _ in 0..<steps {
            if let idle = Self.sweep(&table, pool, before: now - stay) { release(idle) }
        }
    }

    private static func sweep(
        _ table: inout SubjectTable<Subject>, _ pool: [Group], before horizon: MonotonicTime
    ) -> Subject? {
        table.sweep { $0.youngest < 0 || pool[Int($0.youngest)].latest <= horizon }
    }
}

/// The recent admissions of a node, shared by its workers.
package final class AdmissionMemory: Sendable {
    private final class Shard: Sendable {
        let admissions: Mutex<RecentAdmissions>
        init(_ admissions: sending RecentAdmissions) { self.admissions = Mutex(admissions) }
    }

    private let shards: [Shard]
    private let seed: UInt64

    /// Enough that workers seldom meet.
    private static let shardCount = 64

    /// - Parameters:
    ///   - window: how long an admission is remembered.
    ///   - subjectsMax: one more takes the place of a random one, who then has a whole share in a loss: nobody is
    ///     refused because others are many.
    ///   - groupsMax: groups of all subjects together; 4 Mi take 64 MiB, and only while they are used.
    package init(
        window: TimeSpan, seed: UInt64, subjectsMax: Int = 1 << 18, groupsMax: Int = 1 << 22,
        grain: MemoryGrain = .coarse
    ) {
        self.seed = seed
        shards = (0..<Self.shardCount).map { index in
            Shard(
                RecentAdmissions(
                    window: window, subjectsMax: max(1, subjectsMax / Self.shardCount),
                    groupsMax: max(1, groupsMax / Self.shardCount), seed: seed &+ UInt64(index), grain: grain))
        }
    }

    private func shard(_ subject: SubjectKey) -> Shard {
        shards[Int(truncatingIfNeeded: subject.hash(seed: ~seed) >> 58)]
    }

    /// Notes what Redis admitted by this node.
    package func record(_ count: Int, of subject: SubjectKey, at now: MonotonicTime) {
        shard(subject).admissions.withLock { $0.record(count, of: subject, at: now) }
    }

    /// Decides by this node's memory alone.
    package func admit(_ subject: SubjectKey, cost: Int = 1, share: Int, at now: MonotonicTime) -> Verdict {
        shard(subject).admissions.withLock { $0.admit(subject, cost: cost, share: share, at: now) }
    }

    /// Takes back the last admission of a subject.
    package func takeBack(_ subject: SubjectKey, cost: Int = 1) {
        shard(subject).admissions.withLock { $0.takeBack(subject, cost: cost) }
    }

    /// What each subject has been admitted in the window by this node.
    package func visit(at now: MonotonicTime, _ body: (SubjectKey, Int) -> Void) {
        for shard in shards { shard.admissions.withLock { $0.visit(at: now, body) } }
    }

    package var bytes: Int { shards.reduce(0) { $0 + $1.admissions.withLock { $0.bytes } } }

    /// Subjects forgotten too early, for lack of room.
    package var evictionCount: Int { shards.reduce(0) { $0 + $1.admissions.withLock { $0.evictions } } }
}

extension AdmissionMemory {
    /// Remembers each admission as Redis would. Larger than what a node affords: four million subjects, and 16 Mi groups
    /// of 16 bytes.
    convenience init(rehearsing policy: Policy, seed: UInt64) {
        self.init(
            window: policy.window, seed: seed, subjectsMax: 1 << 22, groupsMax: 1 << 24,
            grain: policy.form == .buckets ? .buckets : .exact)
    }
}
