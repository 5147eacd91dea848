// What a node knows of the keys in Redis: a value that does no I/O. Bounded, and what it says is never older than it says.

import Primitives

struct KeyDirectory {
    private struct Entry {
        /// `nil`: there is no such key.
        var record: APIKeyRecord?
        var freshUntil: MonotonicTime
    }

    enum Knowledge: Equatable {
        case known(APIKeyRecord)
        /// Redis has said that there is no such key.
        case absent
        /// Redis is to be asked; `known` is what goes on counting where it cannot be.
        case ask(known: APIKeyRecord?)
    }

    /// How long an answer is believed, and how long workers remember what they were told: together 10 s, after which a
    /// revoked key is refused even where the news of it was lost.
    static let freshness = TimeSpan.seconds(5)

    private var entries: [String: Entry] = [:]
    private let countMax: Int

    /// - Parameter countMax: keys in use at a time; one more takes the place of another, which is then asked for again.
    init(countMax: Int = 1 << 16) { self.countMax = max(1, countMax) }

    var count: Int { entries.count }

    func look(_ hash: String, at now: MonotonicTime) -> Knowledge {
        guard let entry = entries[hash] else { return .ask(known: nil) }
        guard entry.freshUntil > now else { return .ask(known: entry.record) }
        return entry.record.map { .known($0) } ?? .absent
    }

    mutating func learn(_ hash: String, _ record: APIKeyRecord?, at now: MonotonicTime) {
        if entries[hash] == nil, entries.count >= countMax {
            // Whoever made up keys that are not there goes first.
            let victim = entries.first { $0.value.record == nil } ?? entries.first
            if let victim { entries[victim.key] = nil }
        }
        entries[hash] = Entry(record: record, freshUntil: now + Self.freshness)
    }

    /// News: a key was added or revoked.
    mutating func forget(_ hash: String) { entries[hash] = nil }

    /// News may have been lost: nothing is believed without another look, but what was known goes on counting while Redis
    /// is gone.
    mutating func doubtAll(at now: MonotonicTime) {
        for hash in entries.keys {
            if entries[hash]?.record == nil { entries[hash] = nil } else { entries[hash]?.freshUntil = now }
        }
    }
}
