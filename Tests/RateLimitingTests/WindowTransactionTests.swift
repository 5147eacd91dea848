// The properties of the transaction, each against a real Redis.

import Hiredis
import Identity
import LinuxIO
import Primitives
import RateLimiting
import RedisClient
import TestSupport
import Testing

/// One policy on one real server, and a node's clock that can be set wrong.
private final class Bench {
    let server: RedisServer
    let redis: RedisTestClient
    let key: WindowKey
    var names = MemberNames(boot: 0x1234_5678_9abc_def0, worker: 3)
    let subject = SubjectKey(IPAddress(v4: 0xcb00_7107))
    static let name = "rate_limit:default:3/1s:ip:203.0.113.7"

    init(limit: Int = 3, window: TimeSpan = .seconds(1)) throws {
        server = try RedisServer()
        redis = try server.client()
        key = WindowKey(Policy(name: "default", limit: limit, window: window, burst: 1))
    }

    func time() throws -> RedisTime { try redis.time() }

    /// A clock that takes the server's time for `error` more than it is.
    func clock(error: TimeSpan = .zero) throws -> (ServerClock, MonotonicTime) {
        var clock = ServerClock(window: key.policy.window)
        let sent = SystemClock.monotonic()
        let time = try time() + error
        let received = SystemClock.monotonic()
        clock.observe(ServerTimeSample(sentAt: sent, receivedAt: received, time: time))
        return (clock, received)
    }

    func ask(_ count: Int, error: TimeSpan = .zero) throws -> WindowDecision {
        try #require(try outcome(count, error: error).decision)
    }

    func outcome(_ count: Int, error: TimeSpan = .zero, first: UInt64? = nil) throws -> WindowOutcome {
        let (clock, now) = try clock(error: error)
        let first = first ?? names.take(count)
        let transaction = WindowTransaction(subject, first: first, count: count, clock: clock, at: now)
        let reply = try redis.transaction { transaction.write(key, names, to: &$0) }
        return transaction.interpret(reply, limit: key.policy.limit, aheadMax: key.policy.window)
    }
}

extension WindowOutcome {
    fileprivate var decision: WindowDecision? {
        switch self {
        case .decided(let decision): decision
        case .failed, .malformed: nil
        }
    }
}

@Suite("The window's transaction")
struct WindowTransactionTests {
    @Test("admits up to the limit; refused requests consume nothing")
    func limit() throws {
        let bench = try Bench()
        #expect(try bench.ask(1).admitted == 1)
        let second = try bench.ask(1)
        #expect(second.admitted == 1 && second.fullSince == nil)
        let third = try bench.ask(1)
        #expect(third.admitted == 1 && third.fullSince != nil)
        let members = try bench.redis("ZRANGE", Bench.name, "0", "-1")
        for _ in 0..<50 { #expect(try bench.ask(2).admitted == 0) }
        #expect(try bench.redis("ZRANGE", Bench.name, "0", "-1") == members)
    }

    @Test("of more requests than there are slots, the first are in, in the order of their arrival")
    func firstComeFirstServed() throws {
        let bench = try Bench()
        #expect(try bench.ask(1).admitted == 1)
        #expect(try bench.ask(5).admitted == 2)
        // Scores are bounds of the time, so a slow first answer may rank the first entry behind the others.
        let members = try bench.redis("ZRANGE", Bench.name, "0", "-1").dropFirst().dropLast().split(separator: " ")
        #expect(members.sorted() == (0...2).map { "'123456789abcdef0-3-00000000000\($0)'" })
    }

    @Test("a late, refused request with an older score cannot push out an admitted one", arguments: [-5, -500, -1_500])
    func lateCannotPushOut(milliseconds: Int64) throws {
        let bench = try Bench()
        #expect(try bench.ask(3).admitted == 3)
        let before = try bench.redis("ZRANGE", Bench.name, "0", "-1", "WITHSCORES")
        for _ in 0..<10 {
            let decision = try bench.ask(2, error: .milliseconds(milliseconds))
            #expect(decision.admitted == 0)
        }
        #expect(try bench.redis("ZRANGE", Bench.name, "0", "-1", "WITHSCORES") == before)
    }

    @Test("an entry leaves when its window has surely passed, and not before")
    func leaves() throws {
        var bench = try Bench(limit: 1, window: .milliseconds(80))
        var first = try bench.ask(1)
        // One that is executed late has the time at which it should have been, and is decided again.
        while first.timing == .late {
            bench = try Bench(limit: 1, window: .milliseconds(80))
            first = try bench.ask(1)
        }
        #expect(first.admitted == 1)
        while true {
            let next = try bench.ask(1)
            if next.admitted == 0 {
                // However late it was executed: its bounds are from before.
                #expect(next.time - first.time < .seconds(1))
                continue
            }
            #expect(next.time - first.time >= .milliseconds(80))
            break
        }
    }

    @Test("keys are readable, every one has a time to live, and another limit is another key")
    func keys() throws {
        let bench = try Bench()
        _ = try bench.ask(2)
        let other = try Bench(limit: 4)
        _ = try other.ask(1)
        #expect(try bench.redis("KEYS", "*") == "['\(Bench.name)']")
        #expect(try other.redis("KEYS", "*") == "['rate_limit:default:4/1s:ip:203.0.113.7']")
        let ttl = try bench.redis("PTTL", Bench.name)
        #expect((1...11_000).contains(Int(ttl) ?? 0))
        #expect(try bench.redis("ZCOUNT", Bench.name, "+inf", "+inf") == "0")
    }

    @Test("an IPv6 client is named by its /64")
    func ipv6() throws {
        let bench = try Bench()
        let (clock, now) = try bench.clock()
        let subject = SubjectKey(try #require(IPAddress("2001:db8:1:2:3:4:5:6")))
        let transaction = WindowTransaction(subject, first: 0, count: 1, clock: clock, at: now)
        _ = try bench.redis.transaction { transaction.write(bench.key, bench.names, to: &$0) }
        #expect(try bench.redis("KEYS", "*") == "['rate_limit:default:3/1s:ip:2001:db8:1:2::/64']")
    }

    @Test("a transaction that was executed later than its score says is told as late")
    func late() throws {
        let bench = try Bench()
        let decision = try bench.ask(2, error: .milliseconds(-100))
        #expect(decision.timing == .late)
        #expect(decision.admitted == 2)
        #expect(try bench.ask(1).timing == .withinBounds)
    }

    @Test("one that was executed before its lower bound is told as early")
    func early() throws {
        let bench = try Bench()
        #expect(try bench.ask(1, error: .milliseconds(100)).timing == .early)
    }

    @Test("names that were there already admit nobody")
    func namesTaken() throws {
        let bench = try Bench()
        #expect(try bench.outcome(2, first: 7).decision?.admitted == 2)
        let again = try bench.outcome(2, first: 8).decision
        #expect(again?.admitted == 0)
        #expect(again?.anomaly == .namesTaken(1))
    }

    @Test("what somebody left at infinity can only refuse", arguments: [("0", false), ("zzz", true)])
    func leftovers(member: String, isNoticed: Bool) throws {
        let bench = try Bench()
        try bench.redis("ZADD", Bench.name, "+inf", member)
        let first = try bench.ask(3)
        #expect(first.admitted == (isNoticed ? 3 : 2))
        #expect((first.anomaly == .leftovers) == isNoticed)
        #expect(try bench.ask(3).admitted == 0)
        #expect(try Int(bench.redis("ZCARD", Bench.name)) == 3)
    }

    @Test("entries from the future, which a clock that was set back leaves, are told")
    func future() throws {
        let bench = try Bench()
        let future = try bench.time() + .seconds(3_600)
        for i in 0..<3 { try bench.redis("ZADD", Bench.name, "\(future.microseconds + Int64(i))", "m\(i)") }
        let decision = try bench.ask(1)
        #expect(decision.admitted == 0)
        #expect(decision.anomaly == .entriesFromTheFuture)
    }

    @Test("a key of another type is a failure, not a verdict")
    func wrongType() throws {
        let bench = try Bench()
        try bench.redis("SET", Bench.name, "x")
        guard case .failed(let reason) = try bench.outcome(1) else {
            Issue.record("decided")
            return
        }
        #expect(reason.hasPrefix("WRONGTYPE"))
    }

    @Test(
        "the largest transaction and a limit beyond it are decided", arguments: [(256, 1_000_000), (256, 100), (1, 1)])
    func sizes(count: Int, limit: Int) throws {
        let bench = try Bench(limit: limit)
        #expect(try bench.ask(count).admitted == min(count, limit))
        #expect(try bench.ask(count).admitted == min(count, limit - min(count, limit)))
    }

    static let good = "[[1700000000 5] 0 2 0 2 [] 1]"

    @Test(
        "an answer of any other shape is a failure",
        arguments: [
            "7", "nil", "[]", "[[1700000000 5] 0 2 0 2 []]", "[[1700000000 5] 0 2 0 2 [] 1 1]",
            "[[1700000000] 0 2 0 2 [] 1]", "[[x 5] 0 2 0 2 [] 1]", "[[1700000000 1000000] 0 2 0 2 [] 1]",
            "[[-1 5] 0 2 0 2 [] 1]", "[[1700000000 5] x 2 0 2 [] 1]", "[[1700000000 5] 0 x 0 2 [] 1]",
            "[[1700000000 5] 0 2 -1 2 [] 1]", "[[1700000000 5] 0 2 0 3 [] 1]", "[[1700000000 5] 0 2 0 -2 [] 1]",
            "[[1700000000 5] 0 2 0 2 [m] 1]", "[[1700000000 5] 0 2 0 2 [m 1 m 2] 1]", "[[1700000000 5] 0 2 0 2 [] x]",
            "[[1700000000 5] 0 2 0 2 nil 1]", "[[1700000000 5] 0 -ERR 0 2 [] 1]", "[0 0 2 0 2 [] 1]",
        ])
    func shapes(text: String) throws {
        let transaction = WindowTransaction(
            SubjectKey(.v4Loopback), first: 0, count: 2, clock: ServerClock(), at: MonotonicTime(nanoseconds: 0))
        #expect(transaction.interpret(try reply(Self.good), limit: 3, aheadMax: .seconds(1)).decision?.admitted == 2)
        #expect(transaction.interpret(try reply(text), limit: 3, aheadMax: .seconds(1)).decision == nil)
    }

    /// Builds a reply from a notation: `7` and `x` as they stand, `[a b]`, `nil`, `-ERR`.
    private func reply(_ text: String) throws -> Reply {
        var wire = ""
        var words = text.replacing("[", with: "[ ").replacing("]", with: " ]").split(separator: " ")[...]
        func value() -> String {
            let word = words.removeFirst()
            if word == "[" {
                var count = 0
                var inner = ""
                while words.first != "]" {
                    inner += value()
                    count += 1
                }
                words.removeFirst()
                return "*\(count)\r\n\(inner)"
            }
            if word == "nil" { return "$-1\r\n" }
            if word.hasPrefix("-ERR") { return "\(word)\r\n" }
            // TIME answers with strings; numbers elsewhere are integers.
            if let number = Int(word), number < 1_000_000, number != 5 { return ":\(number)\r\n" }
            return "$\(word.utf8.count)\r\n\(word)\r\n"
        }
        wire = value()
        var reader = ReplyReader()
        let bytes = Array(wire.utf8)
        reader.feed(bytes.span)
        try #require(try reader.next())
        return reader.reply
    }
}
