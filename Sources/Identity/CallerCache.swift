// What became of the credentials that were seen lately: one worker's, bounded, without an allocation for a look.
//
// Good and bad ones live apart: a flood of made-up tokens pushes out only what is known of other made-up tokens. A place
// is one of four that the digest chooses; a table that is looked through for the oldest was rejected, since the look at a
// place has to cost as little as the hash of a header.

package import Primitives

/// Which credentials are to be looked at anew.
package enum CredentialChange: Equatable, Sendable {
    /// Other keys sign now.
    case all
    /// API keys; which of them is not known.
    case keys
    /// An API key was added, revoked or changed.
    case key(id: String)
}

package struct CallerCache: ~Copyable {
    private struct Slot {
        var low: UInt64 = 0
        var high: UInt64 = 0
        var until = MonotonicTime(nanoseconds: .min)
        var caller: Caller?
        var fault = CredentialFault.malformed
    }

    private var good: [Slot]
    private var bad: [Slot]

    private static let ways = 4

    /// Memory of the table; the callers' names are kept once for all that remember them.
    package var bytes: Int { (good.capacity + bad.capacity) * MemoryLayout<Slot>.stride }

    /// - Parameters:
    ///   - goodMax: verified credentials; rounded up to a power of two. 16,384 take 800 KiB, and as much again as their
    ///     owners' names.
    ///   - badMax: refused ones.
    package init(goodMax: Int = 1 << 14, badMax: Int = 1 << 10) {
        func slots(_ count: Int) -> [Slot] {
            var size = Self.ways
            while size < count { size *= 2 }
            return Array(repeating: Slot(), count: size)
        }
        good = slots(goodMax)
        bad = slots(badMax)
    }

    /// What is known of a credential.
    package func find(_ digest: CredentialDigest, at now: MonotonicTime) -> CredentialOutcome? {
        if let place = Self.find(digest, good), good[place].until > now, let caller = good[place].caller {
            return .verified(caller)
        }
        if let place = Self.find(digest, bad), bad[place].until > now { return .refused(bad[place].fault) }
        return nil
    }

    /// Remembers an outcome; `unavailable` is none.
    package mutating func insert(
        _ digest: CredentialDigest, _ outcome: CredentialOutcome, until: MonotonicTime, at now: MonotonicTime
    ) {
        guard until > now else { return }
        switch outcome {
        case .verified(let caller):
            let place = Self.place(digest, good, at: now)
            good[place] = Slot(low: digest.low, high: digest.high, until: until, caller: caller)
        case .refused(let fault):
            let place = Self.place(digest, bad, at: now)
            bad[place] = Slot(low: digest.low, high: digest.high, until: until, fault: fault)
        case .unavailable: break
        }
    }

    /// Forgets what a change concerns. Refused credentials go with any: one of them may be good now.
    package mutating func remove(_ which: CredentialChange) {
        let id = if case .key(let id) = which { Array(id.utf8) } else { [UInt8]() }
        for place in good.indices {
            guard let caller = good[place].caller else { continue }
            let isMeant =
                switch which {
                case .all: true
                case .keys: !caller.names.key.isEmpty
                case .key: !id.isEmpty && caller.names.key == id
                }
            if isMeant { good[place] = Slot() }
        }
        for place in bad.indices { bad[place] = Slot() }
    }

    /// Places in use, expired ones included.
    package var count: Int {
        let unused = MonotonicTime(nanoseconds: .min)
        return good.count { $0.until > unused } + bad.count { $0.until > unused }
    }

    @inline(__always)
    private static func first(_ digest: CredentialDigest, _ slots: [Slot]) -> Int {
        Int(truncatingIfNeeded: digest.low) & (slots.count &- 1) & ~(ways &- 1)
    }

    private static func find(_ digest: CredentialDigest, _ slots: [Slot]) -> Int? {
        let first = first(digest, slots)
        for place in first..<(first &+ ways) where slots[place].low == digest.low && slots[place].high == digest.high {
            return place
        }
        return nil
    }

    /// Its own place, or that of the one that ends first.
    private static func place(_ digest: CredentialDigest, _ slots: [Slot], at now: MonotonicTime) -> Int {
        if let own = find(digest, slots) { return own }
        let first = first(digest, slots)
        var best = first
        for place in first..<(first &+ ways) where slots[place].until < slots[best].until { best = place }
        return best
    }
}
