// The windows of limits in Redis, read without changing them, and deleted. docs/redis.md says the same in redis-cli's words.

import Gateway
import LinuxIO
import Primitives
import RateLimiting

struct LimitStore {
    /// What a subject has used of a limit.
    struct Usage {
        var key: LimitKey
        var used: Int
        /// When the first of the slots that are taken frees; nobody knows where requests at once are counted.
        var freesAt: RedisTime?

        var remaining: Int { max(0, key.limit - used) }
        var isFull: Bool { used >= key.limit }
        var share: Double { Double(used) / Double(max(1, key.limit)) }
    }

    let servers: RedisServers
    /// How long requests at once count that nobody renews, by policy: the key does not say it.
    var leases: [String: TimeSpan] = [:]

    /// By policy, which the key does not say either; empty where no configuration is known.
    var modes: [String: PolicyMode] = [:]

    /// Keys of one step of `SCAN`: less than a millisecond of the server's time.
    private static let stepSize = 500

    func text(_ key: LimitKey) -> String { key.text(onCluster: servers.isCluster) }

    // MARK: Reading

    /// What time it is at the server that holds a key.
    private static func time(_ value: RedisSession.Value) throws -> RedisTime {
        let parts = value.elements.compactMap(\.integer)
        guard parts.count == 2 else { throw RedisSession.Failure(description: "TIME was answered by something else") }
        return RedisTime(microseconds: saturatingAdd(saturatingMultiply(parts[0], 1_000_000), parts[1]))
    }

    /// No usage where the key holds something that is no window (`WRONGTYPE`).
    func usage(of key: LimitKey) throws -> (usage: Usage?, time: RedisTime) {
        let name = text(key)
        let now = try Self.time(try servers.ask(name, [["TIME"]])[0])
        do {
            return (usage(key, try servers.ask(name, commands(key, at: now)), at: now), now)
        } catch let failure as RedisSession.Failure where Self.isWrongType(failure) {
            return (nil, now)
        }
    }

    private static func isWrongType(_ failure: RedisSession.Failure) -> Bool {
        failure.refusal?.hasPrefix("WRONGTYPE") == true
    }

    /// The questions that `usage(_:_:at:)` reads the answers to.
    private func commands(_ key: LimitKey, at now: RedisTime) -> [[String]] {
        let name = text(key)
        switch key.form {
        case .window:
            // What is older has left, whether or not anybody has taken it out.
            let horizon = "\((now - (key.window ?? .zero)).microseconds)"
            return [
                ["ZCOUNT", name, horizon, "+inf"],
                ["ZRANGEBYSCORE", name, horizon, "+inf", "WITHSCORES", "LIMIT", "0", "1"],
            ]
        case .buckets: return [["ZRANGE", name, "0", "-1", "WITHSCORES"]]
        case .leases:
            guard let lease = leases[key.policy] else { return [["ZCARD", name]] }
            return [["ZCOUNT", name, "\((now - lease).microseconds)", "+inf"]]
        }
    }

    private func usage(_ key: LimitKey, _ answers: [RedisSession.Value], at now: RedisTime) -> Usage {
        let window = key.window ?? .zero
        switch key.form {
        case .window:
            let oldest = answers.last?.elements.last?.integer.map { RedisTime(microseconds: $0) + window }
            return Usage(key: key, used: Int(clamping: answers.first?.integer ?? 0), freesAt: oldest)
        case .buckets:
            let parts = answers.first?.elements.map { $0.integer ?? 0 } ?? []
            let entries = stride(from: 0, to: parts.count - 1, by: 2).map { (end: parts[$0], count: parts[$0 + 1]) }
            let (used, freesAt) = LimitContent.buckets(entries, window: window, at: now)
            return Usage(key: key, used: used, freesAt: freesAt)
        case .leases: return Usage(key: key, used: Int(clamping: answers.first?.integer ?? 0), freesAt: nil)
        }
    }

    // MARK: Looking through all

    /// Goes through the windows whose keys match, step by step.
    ///
    /// - Parameter body: gets the windows of a step and the time at their server. A window can come twice (`SCAN`).
    /// - Returns: how many keys were looked at.
    @discardableResult
    func scan(
        _ pattern: String, _ body: ([LimitKey], RedisSession, RedisTime) throws -> Void
    ) throws -> Int {
        var progress = Progress("keys")
        let sessions = try servers.all()
        progress.total = try sessions.reduce(0) { $0 + Int(clamping: try $1.ask("DBSIZE").integer ?? 0) }
        for session in sessions {
            var cursor = "0"
            repeat {
                let answers = try session.pipeline([
                    ["SCAN", cursor, "MATCH", pattern, "COUNT", "\(Self.stepSize)"], ["TIME"],
                ])
                let step = try answers[0].get().elements
                guard step.count == 2, let next = step[0].text else {
                    throw RedisSession.Failure(description: "SCAN was answered by something else")
                }
                cursor = next
                let keys = step[1].elements.compactMap { $0.text.flatMap { LimitKey($0) } }
                if !keys.isEmpty { try body(keys, session, try Self.time(try answers[1].get())) }
                progress.advance(Self.stepSize)
            } while cursor != "0"
        }
        return progress.total
    }

    /// What is used of each window of a step. One that is just moving to another server is left out: it is seen there.
    ///
    /// - Parameter strange: gets the keys that hold something that is no window.
    func usages(
        of keys: [LimitKey], _ session: RedisSession, at now: RedisTime, strange: (LimitKey) -> Void
    ) throws -> [Usage] {
        let questions = keys.map { commands($0, at: now) }
        var answers = try session.pipeline(questions.flatMap(\.self))[...]
        return try zip(keys, questions).compactMap { key, question in
            defer { answers = answers.dropFirst(question.count) }
            let own = answers.prefix(question.count)
            for case .failure(let failure) in own {
                if isRedirection(failure) { return nil }
                if Self.isWrongType(failure) {
                    strange(key)
                    return nil
                }
            }
            return usage(key, try own.map { try $0.get() }, at: now)
        }
    }

    private func isRedirection(_ failure: RedisSession.Failure) -> Bool {
        guard servers.isCluster, let word = failure.refusal?.split(separator: " ").first else { return false }
        return ["MOVED", "ASK", "TRYAGAIN"].contains(word)
    }

    /// Names keys that hold something that is no window, on standard error: the nodes decide by the loss rule for whom they
    /// count.
    func tell(strange keys: Set<LimitKey>) {
        let names = keys.map { (name: text($0), subject: $0.subject) }.sorted { $0.name < $1.name }
        for (name, subject) in names.prefix(Self.strangeShown) {
            printError(
                "sluice: \(name) is left out: it holds something that is no window; "
                    + "`sluice limits reset \(subject)` deletes it")
        }
        if names.count > Self.strangeShown {
            printError("sluice: \(names.count - Self.strangeShown) more such keys are left out")
        }
    }

    private static let strangeShown = 10

    // MARK: Deleting

    /// Whether there was anything.
    func delete(_ key: LimitKey) throws -> Bool {
        try servers.ask(text(key), [["UNLINK", text(key)]])[0].integer == 1
    }
}

/// Says now and then on standard error how far something long has come; nothing of what is short.
struct Progress {
    private let what: String
    var total = 0
    private var done = 0
    private var told = SystemClock.monotonic()

    private static let pause = TimeSpan.seconds(2)

    init(_ what: String) { self.what = what }

    mutating func advance(_ count: Int) {
        done += count
        let now = SystemClock.monotonic()
        guard now - told >= Self.pause else { return }
        told = now
        let part = total > 0 ? " of \(total) (\(min(100, done * 100 / total)) %)" : ""
        printError("sluice: \(total > 0 ? min(done, total) : done)\(part) \(what)")
    }
}
