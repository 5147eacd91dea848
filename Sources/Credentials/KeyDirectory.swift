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

/// Who waits for Redis to say what a key is, by the key's hash.
struct KeyQuestions<Question> {
    private struct Asked {
        var questions: [Question]
        /// News of the key came since Redis was asked: its answer may be of the time before.
        var isDoubted = false
    }

    private var asked: [String: Asked] = [:]

    /// Returns whether Redis is to be asked.
    mutating func add(_ question: Question, _ hash: String) -> Bool {
        if asked[hash] != nil {
            asked[hash]?.questions.append(question)
            return false
        }
        asked[hash] = Asked(questions: [question])
        return true
    }

    func isAsked(_ hash: String) -> Bool { asked[hash] != nil }
    mutating func doubt(_ hash: String) { asked[hash]?.isDoubted = true }
    mutating func doubtAll() { for hash in asked.keys { asked[hash]?.isDoubted = true } }

    /// Redis has answered: who waits for it; `nil`: it is to be asked again.
    mutating func answered(_ hash: String) -> [Question]? {
        guard asked[hash]?.isDoubted == true else { return failed(hash) }
        asked[hash]?.isDoubted = false
        return nil
    }

    /// Nobody can tell: who waited.
    mutating func failed(_ hash: String) -> [Question] { asked.removeValue(forKey: hash)?.questions ?? [] }
}
