// A changed limit takes the old window along. The limit is part of the key, so another limit begins with an empty window,
// and a client that has used up the old one would have all of the new one at once. The first transaction of a subject
// therefore goes behind one that copies what the windows of before hold:
//
//   MULTI
//   ZUNIONSTORE     new 2 new old AGGREGATE MAX   entries keep their names and their times: copied twice, they are the same
//   ZREMRANGEBYRANK new 0 -(limit + 1)            where there are too many, the latest count: they leave last
//   PEXPIRE         new window and margin
//   EXEC
//
// Moving the key (RENAMENX) was rejected: whoever still goes by the old limit, another worker or node, would begin anew.
// Such may still admit for a moment, so in the beginning a subject's windows are copied again and again, and afterwards
// once more. A copy takes Redis a microsecond or two for each entry, so it is as rare as there are many.
//
// Leases are not copied: an entry that is, nobody takes out when its request ends, and nobody renews. Each limiter charges
// what runs by the word of the one before it under a name of its own, and frees both when the request ends.

import Hiredis
import Identity
import LinuxIO
import Primitives

/// The windows of a policy that count on under other limits.
struct FormerWindows: Sendable {
    /// The latest last.
    var keys: [WindowKey]
    /// Until the youngest of them has run out.
    var until: MonotonicTime

    /// Changes within one window; beyond them the oldest is forgotten.
    private static let keysMax = 4

    /// Those of a policy whose place another takes now; `nil` where nothing goes on.
    static func after(_ before: LimiterContext?, _ policy: Policy, at now: MonotonicTime) -> FormerWindows? {
        // On a cluster the two keys may lie on two servers.
        guard let before, !before.onCluster,
            let old = before.policies.firstIndex(where: {
                $0.name == policy.name && $0.key == policy.key && $0.tier == policy.tier
            })
        else { return nil }
        let earlier = before.former[old].flatMap { $0.until > now ? $0 : nil }
        // Entries and counts would be taken for each other; and of counts, neither the greater nor the sum is what was
        // admitted, nor may the least be dropped. Such a window begins anew.
        guard before.policies[old].form == policy.form, policy.form == .window else { return nil }
        guard before.policies[old].keyPrefix != policy.keyPrefix else { return earlier }
        var keys = (earlier?.keys ?? []).filter { $0.policy.keyPrefix != policy.keyPrefix }
        keys.append(before.keys[old])
        return FormerWindows(keys: keys.suffix(keysMax), until: now + before.policies[old].window + .seconds(1))
    }
}

/// What a machine has copied.
struct Carrying {
    private var begun: MonotonicTime?
    /// When the windows of a subject are copied again.
    private var next: SubjectTable<MonotonicTime>
    private(set) var isNeeded: Bool

    /// Longer than it takes until all workers and, in one switch of the cluster, all nodes go by the new limit.
    private static let settling = TimeSpan.seconds(1)
    private static let subjectsMax = 1 << 16
    /// From a copy to the next one, for each entry: it takes Redis up to 2 µs, so a machine takes at most a fiftieth of it.
    private static let pauseOfEntry = TimeSpan.microseconds(100)
    private static let pauseMin = TimeSpan.milliseconds(2)

    init(_ context: LimiterContext) {
        isNeeded = context.former.contains { $0 != nil }
        next = SubjectTable(countMax: Self.subjectsMax, seed: context.seed)
    }

    /// Whether the subject's transaction has to go behind a copy.
    mutating func mustCarry(_ subject: SubjectKey, _ former: [FormerWindows?], at now: MonotonicTime) -> Bool {
        guard let windows = former[Int(subject.policy)], now < windows.until else {
            if !former.contains(where: { ($0?.until ?? now) > now }) { self = Carrying() }
            return false
        }
        let begun = self.begun ?? now
        self.begun = begun
        let next = now - begun < Self.settling ? now + Self.pauseMin : .distantFuture
        if let place = self.next.find(subject) {
            guard now >= self.next[place] else { return false }
            self.next[place] = next
            return true
        }
        if self.next.isFull { _ = self.next.evict() }
        _ = self.next.insert(subject, next)
        return true
    }

    /// A copy was made, of so many entries.
    mutating func copied(_ subject: SubjectKey, entries: Int64, at now: MonotonicTime) {
        guard let place = next.find(subject), next[place] < .distantFuture else { return }
        next[place] = now + max(Self.pauseMin, Self.pauseOfEntry * min(max(0, entries), 1 << 30))
    }

    /// Nothing is left to copy.
    private init() {
        isNeeded = false
        next = SubjectTable(countMax: 1, seed: 0)
    }
}

extension LimiterContext {
    /// Whom it counts in place of a subject of another context that holds a lease there; `nil` where nobody, or by the
    /// same key.
    func counterpart(of subject: SubjectKey, in before: LimiterContext) -> SubjectKey? {
        let old = before.policies[Int(subject.policy)]
        let place = policies.firstIndex {
            $0.form == .leases && $0.name == old.name && $0.key == old.key && $0.tier == old.tier
        }
        guard old.form == .leases, let place else { return nil }
        let counterpart = subject.counted(by: UInt8(clamping: place))
        // Services may have other numbers than before.
        guard keys[place].name(counterpart) == before.key(of: subject).name(subject),
            keys[place].text(counterpart) != before.key(of: subject).text(subject)
        else { return nil }
        return counterpart
    }
}

extension WindowMachine {
    static let carryingCommands = 3

    func isWaiting(_ subject: SubjectKey) -> Bool {
        guard let place = subjects.find(subject) else { return false }
        return subjects[place].waiting > 0
    }

    func writeCarrying(_ subject: SubjectKey, to writer: inout CommandWriter) {
        let key = context.key(of: subject)
        let old = context.former[Int(subject.policy)]?.keys ?? []
        writer.add("ZUNIONSTORE")
        writer.add { key.write(subject, to: &$0) }
        writer.add(Int64(old.count + 1))
        writer.add { key.write(subject, to: &$0) }
        for old in old { writer.add { old.write(subject, to: &$0) } }
        writer.add("AGGREGATE")
        writer.add("MAX")
        writer.end()
        WindowTransaction.writeOldestOut(key, subject, to: &writer)
        WindowTransaction.writeExpiry(key, subject, to: &writer)
    }
}
