// The machine, with a real Redis behind it and time in the test's hands where time matters.

import Hiredis
import Identity
import LinuxIO
import Primitives
import RedisClient
import Synchronization
import TestSupport
import Testing

@testable import RateLimiting

final class Asker: LimitRequester {
    var verdicts: [UInt64: [Verdict]] = [:]
    func limitDecided(token: UInt64, verdict: Verdict) { verdicts[token, default: []].append(verdict) }
}

/// A machine, its server, and what is between them.
final class MachineBench {
    let server: RedisServer
    let redis: RedisTestClient
    let context: LimiterContext
    var machine: WindowMachine
    let asker = Asker()
    /// Ahead of the real clock: time that the test lets pass.
    var ahead = TimeSpan.zero
    var nextToken: UInt64 = 0
    var transmissions = 0
    var subject = SubjectKey(IPAddress(v4: 0x0a00_0001))
    var key: String { "\(context.policy.keyPrefix)ip:10.0.0.1" }

    init(
        limit: Int = 3, window: TimeSpan = .seconds(1), rule: LossRule = .closed, worker: Int = 0,
        timeout: TimeSpan = .milliseconds(50), context: LimiterContext? = nil, server: RedisServer? = nil
    ) throws {
        let server = try server ?? RedisServer()
        self.server = server
        redis = try server.client()
        let policy = Policy(name: "default", limit: limit, window: window, burst: 1)
        let context = context ?? LimiterContext(policy, lossRule: rule, timeout: timeout, boot: 0xb007, seed: 5)
        self.context = context
        machine = WindowMachine(context, worker: worker)
    }

    var now: MonotonicTime { SystemClock.monotonic() + ahead }

    /// Logs in. `error`: how much too late the machine takes the server's clock to be.
    func connect(error: TimeSpan = .zero) throws {
        let sent = now
        let time = try redis.time()
        machine.connected(ServerTimeSample(sentAt: sent, receivedAt: now, time: time + error))
    }

    /// Asks once; a verdict at once counts as one that is delivered.
    @discardableResult
    func ask() -> LimitDecision {
        nextToken += 1
        let decision = machine.ask(subject, asker, token: nextToken, at: now)
        switch decision {
        case .decided(let verdict): asker.limitDecided(token: nextToken, verdict: verdict)
        case .pending: break
        }
        return decision
    }

    func ask(times: Int) { for _ in 0..<times { ask() } }

    func next() -> Transmission? {
        let next = machine.next(at: now)
        // Confirmations, which a busy machine may need at any time, are not counted.
        if next?.form == .transaction(commands: WindowTransaction.commandCount) { transmissions += 1 }
        return next
    }

    func probe() -> Transmission? { machine.probe(at: now) }

    /// Lets the server execute a transmission.
    func execute(_ transmission: Transmission) throws -> Reply {
        switch transmission.form {
        case .command: try redis.command { machine.write(transmission, to: &$0) }
        case .transaction: try redis.transaction { machine.write(transmission, to: &$0) }
        }
    }

    func answer(_ transmission: Transmission, _ reply: Reply) {
        machine.replied(transmission.token, reply, at: now)
        deliver()
    }

    func deliver() {
        var answers: [LimitAnswer] = []
        machine.takeAnswers(into: &answers)
        for answer in answers { answer.requester.limitDecided(token: answer.token, verdict: answer.verdict) }
    }

    /// Sends, executes and answers until there is nothing to do.
    func pump() throws {
        while let transmission = next() { answer(transmission, try execute(transmission)) }
        deliver()
    }

    func expireAll() {
        ahead = ahead + context.timeout
        machine.expire(through: now, at: now)
        deliver()
    }

    var admitted: Int { asker.verdicts.values.joined().filter { $0 == .admit(remaining: nil) }.count + sharedOut }
    /// Admitted by a share, which tells what remains.
    private var sharedOut: Int { context.policyCounts[0].admitted(by: .share) }
    var refused: Int { asker.verdicts.values.joined().count - admitted }
    var everyoneAnsweredOnce: Bool {
        asker.verdicts.count == Int(nextToken) && asker.verdicts.values.allSatisfy { $0.count == 1 }
    }
    func serverSeconds() throws -> Int64 {
        try redis.time().microseconds / 1_000_000
    }
    func inWindow() throws -> Int { Int(try redis("ZCARD", key)) ?? -1 }
}

@Suite("The window's machine")
struct WindowMachineTests {
    @Test("requests of a turn go together, and those that come meanwhile go with the next transaction")
    func gathering() throws {
        let bench = try MachineBench(limit: 100)
        try bench.connect()
        bench.ask(times: 10)
        let first = try #require(bench.next())
        #expect(bench.next() == nil)
        bench.ask(times: 5)
        #expect(bench.next() == nil)
        bench.answer(first, try bench.execute(first))
        try bench.pump()
        #expect(bench.transmissions == 2)
        #expect(bench.admitted == 15)
        #expect(try bench.inWindow() == 15)
    }

    @Test("of a crowd the first are admitted, the others cost Redis no entry")
    func crowd() throws {
        let bench = try MachineBench(limit: 3)
        try bench.connect()
        bench.ask(times: 500)
        try bench.pump()
        #expect(bench.transmissions == 1)
        #expect(bench.admitted == 3 && bench.refused == 497)
        #expect((1...3).allSatisfy { bench.asker.verdicts[$0] == [.admit(remaining: nil)] })
        #expect(bench.everyoneAnsweredOnce)
    }

    @Test("more requests than one transaction holds go in several of one write")
    func manyEntries() throws {
        let bench = try MachineBench(limit: 10_000)
        try bench.connect()
        bench.ask(times: 1_000)
        var sent: [Transmission] = []
        while let transmission = bench.next() { sent.append(transmission) }
        #expect(sent.count == 4)
        for transmission in sent { bench.answer(transmission, try bench.execute(transmission)) }
        try bench.pump()
        #expect(bench.transmissions == 4)
        #expect(bench.admitted == 1_000)
        #expect(try bench.inWindow() == 1_000)
    }

    @Test("a full window refuses without a question, until a slot frees")
    func fullWindow() throws {
        let bench = try MachineBench(limit: 3)
        try bench.connect()
        bench.ask(times: 3)
        try bench.pump()
        // It is known to be full although nobody has been refused yet.
        for _ in 0..<1_000 {
            guard case .decided(.refuse(let retryAfter)) = bench.ask() else {
                Issue.record("asked")
                return
            }
            #expect(retryAfter > .milliseconds(500) && retryAfter < .milliseconds(1_100))
        }
        #expect(bench.transmissions == 1)
        #expect(bench.context.policyCounts[0].refused(by: .fullWindow) == 1_000)
        #expect(bench.context.policyCounts[0].admitted(by: .window) == 3)
        bench.ahead = bench.ahead + .seconds(1)
        #expect(bench.ask() == .pending)
    }

    @Test("two workers of a node share what is known of a full window")
    func sharedMemory() throws {
        let first = try MachineBench(limit: 3)
        let second = try MachineBench(worker: 1, context: first.context, server: first.server)
        try first.connect()
        try second.connect()
        first.ask(times: 3)
        try first.pump()
        #expect(second.ask() != .pending)
    }

    @Test(
        "nobody waits longer than the timeout; what the window lets in too late is put right", arguments: [true, false])
    func timeout(open: Bool) throws {
        let bench = try MachineBench(rule: open ? .open : .closed)
        try bench.connect()
        bench.ask(times: 5)
        let transmission = try #require(bench.next())
        let reply = try bench.execute(transmission)
        bench.expireAll()
        #expect(bench.everyoneAnsweredOnce)
        #expect(bench.admitted == (open ? 5 : 0))
        #expect(try bench.inWindow() == 3)
        bench.ahead = .zero
        bench.answer(transmission, reply)
        try bench.pump()
        // All five were admitted, and fill the window as the latest three of them; or none was, and none counts.
        #expect(try bench.inWindow() == (open ? 3 : 0))
        #expect(bench.everyoneAnsweredOnce)
    }

    @Test("after three timeouts in a row nobody waits, until a probe is answered in time")
    func suspension() throws {
        let bench = try MachineBench(rule: .open)
        try bench.connect()
        for round in 1...3 {
            // Each round another subject, because this one's transaction stays under way.
            bench.subject = SubjectKey(IPAddress(v4: UInt32(round)))
            bench.ask()
            _ = bench.next()
            bench.expireAll()
            #expect(bench.machine.breaker.mayAsk == (round < 3))
        }
        let decision = bench.ask()
        #expect(decision == .decided(.admit(remaining: nil)))
        let slow = try #require(bench.probe())
        #expect(bench.probe() == nil)
        let reply = try bench.execute(slow)
        // Sooner than a request gives up, but nearly as late: it would be lost again.
        bench.ahead = bench.ahead + .milliseconds(38)
        bench.answer(slow, reply)
        #expect(!bench.machine.breaker.mayAsk)
        let probe = try #require(bench.probe())
        bench.answer(probe, try bench.execute(probe))
        #expect(bench.machine.breaker.mayAsk)
        #expect(bench.ask() == .pending)
        // That time was moved on is taken for a clock that was set.
        let events = bench.machine.takeEvents().filter { if case .anomaly = $0 { false } else { true } }
        #expect(events == [.lost(.late("no answer within 50ms, 3 times in a row")), .restored])
    }

    @Test("those who wait behind a transaction that is not answered are losses too")
    func lossesBehind() throws {
        let bench = try MachineBench(rule: .open)
        try bench.connect()
        bench.ask()
        _ = bench.next()
        for round in 1...3 {
            // They gather behind the first, which was lost in the first round.
            bench.ahead = bench.ahead + .milliseconds(1)
            bench.ask()
            bench.expireAll()
            #expect(bench.everyoneAnsweredOnce)
            #expect(bench.machine.breaker.mayAsk == (round < 2), "round \(round)")
        }
        #expect(bench.admitted == 4)
    }

    @Test("a server that refuses to serve is not asked again at once", arguments: ["LOADING x", "READONLY y", "OOM z"])
    func refusal(text: String) throws {
        let bench = try MachineBench(rule: .closed)
        try bench.connect()
        bench.ask(times: 2)
        let transmission = try #require(bench.next())
        bench.machine.failed(transmission.token, .refused(text), at: bench.now)
        bench.deliver()
        #expect(bench.refused == 2)
        #expect(bench.ask() != .pending)
    }

    @Test("a poisoned key is decided by the loss rule and suspends nobody else")
    func wrongType() throws {
        let bench = try MachineBench(rule: .open)
        try bench.connect()
        try bench.redis("SET", bench.key, "x")
        bench.ask(times: 2)
        try bench.pump()
        #expect(bench.admitted == 2)
        #expect(bench.machine.breaker.mayAsk)
    }

    @Test("what was admitted while Redis was gone is in the window when it is back")
    func charging() throws {
        let bench = try MachineBench(limit: 10, rule: .open)
        bench.ask(times: 4)
        #expect(bench.admitted == 4)
        try bench.connect()
        bench.ask()
        try bench.pump()
        #expect(try bench.inWindow() == 5)
        #expect(Int(try bench.redis("PTTL", bench.key)) ?? 0 > 0)
        #expect(try bench.redis("ZCOUNT", bench.key, "+inf", "+inf") == "0")
    }

    @Test(
        "a server that comes back without its data gets the window again; one that kept it is not changed",
        arguments: [true, false])
    func healing(lost: Bool) throws {
        let bench = try MachineBench(limit: 10)
        try bench.connect()
        bench.ask(times: 4)
        try bench.pump()
        bench.ask(times: 3)
        try bench.pump()
        let before = try bench.redis("ZRANGE", bench.key, "0", "-1", "WITHSCORES")
        bench.machine.disconnected(.lost("x"), at: bench.now)
        if lost { try bench.redis("FLUSHALL") }
        try bench.connect()
        try bench.pump()
        #expect(try bench.inWindow() == 7)
        if !lost { #expect(try bench.redis("ZRANGE", bench.key, "0", "-1", "WITHSCORES") == before) }
        bench.ask(times: 5)
        try bench.pump()
        #expect(bench.admitted == 10)
    }

    @Test(
        "what a server cannot take at the moment is written later: it loads, is a replica, or takes no writes",
        arguments: ["LOADING x", "READONLY x", "MISCONF x", "NOREPLICAS x", "CLUSTERDOWN x", "OOM x"])
    func busy(text: String) throws {
        let bench = try MachineBench(limit: 10)
        try bench.connect()
        bench.ask(times: 4)
        try bench.pump()
        bench.machine.disconnected(.lost("x"), at: bench.now)
        try bench.redis("FLUSHALL")
        try bench.connect()
        let adding = try #require(bench.next())
        bench.machine.failed(adding.token, .refused(text), at: bench.now)
        #expect(bench.next() == nil && !bench.machine.breaker.mayAsk)
        let probe = try #require(bench.probe())
        bench.answer(probe, try bench.execute(probe))
        try bench.pump()
        #expect(try bench.inWindow() == 4)
    }

    @Test("what it would refuse for ever is not", arguments: ["WRONGTYPE x", "NOPERM x"])
    func hopeless(text: String) throws {
        let bench = try MachineBench(limit: 10)
        try bench.connect()
        bench.ask(times: 4)
        try bench.pump()
        bench.machine.disconnected(.lost("x"), at: bench.now)
        try bench.connect()
        let adding = try #require(bench.next())
        bench.machine.failed(adding.token, .refused(text), at: bench.now)
        #expect(bench.next() == nil && bench.machine.breaker.mayAsk)
    }

    @Test("what is added back pushes nobody out of a full window: the oldest make room")
    func addingBack() throws {
        let first = try MachineBench(limit: 3)
        try first.connect()
        first.ask()
        try first.pump()
        let entry = try first.redis("ZRANGE", first.key, "0", "0")
        // Its entry has left the window, a moment before the window's length has passed by this node's clock.
        try first.redis("DEL", first.key)
        let second = try MachineBench(limit: 3, worker: 1, server: first.server)
        try second.connect()
        second.ask(times: 3)
        try second.pump()
        #expect(second.admitted == 3)
        let full = try second.redis("ZRANGE", second.key, "0", "-1", "WITHSCORES")
        first.machine.disconnected(.lost("x"), at: first.now)
        try first.connect()
        let addingBack = try #require(first.next())
        #expect(try first.execute(addingBack).integer(1) == 1)
        #expect(!full.contains(entry))
        // The next decision trims the window to its limit.
        let third = try MachineBench(limit: 3, worker: 2, server: first.server)
        try third.connect()
        third.ask()
        try third.pump()
        #expect(third.refused == 1)
        #expect(try second.redis("ZRANGE", second.key, "0", "-1", "WITHSCORES") == full)
    }

    @Test("what lies further back than the window is not charged")
    func chargingOld() throws {
        let bench = try MachineBench(limit: 10, rule: .open)
        bench.ask(times: 4)
        bench.ahead = .seconds(2)
        try bench.connect()
        try bench.pump()
        #expect(try bench.inWindow() == 0)
    }

    @Test(
        "a connection that breaks answers everyone once, and what it left behind is put right",
        arguments: [true, false])
    func disconnection(executed: Bool) throws {
        let bench = try MachineBench(limit: 10, rule: .share)
        bench.context.nodesChanged(running: 4)
        try bench.connect()
        bench.ask(times: 6)
        let transmission = try #require(bench.next())
        if executed { _ = try bench.execute(transmission) }
        bench.ask(times: 2)
        bench.machine.failed(transmission.token, .lost("x"), at: bench.now)
        bench.machine.disconnected(.lost("x"), at: bench.now)
        bench.deliver()
        #expect(bench.everyoneAnsweredOnce)
        // The share of one of four nodes, rounded up.
        #expect(bench.admitted == 3)
        #expect(bench.ask() != .pending)
        try bench.connect()
        try bench.pump()
        #expect(try bench.inWindow() == 3)
    }

    @Test("a share counts what Redis admitted before the loss")
    func shareCountsBefore() throws {
        let bench = try MachineBench(limit: 10, rule: .share)
        bench.context.nodesChanged(running: 2)
        try bench.connect()
        bench.ask(times: 4)
        try bench.pump()
        bench.machine.disconnected(.lost("x"), at: bench.now)
        bench.ask(times: 4)
        #expect(bench.admitted == 5)
    }

    @Test("survivors of a late transaction wait until they are confirmed, and then have the time of their admission")
    func confirmation() throws {
        let bench = try MachineBench(limit: 3, timeout: .seconds(5))
        try bench.connect(error: .milliseconds(-200))
        bench.ask(times: 5)
        let transmission = try #require(bench.next())
        let reply = try bench.execute(transmission)
        let time = (reply.integer(2) ?? 0) * 1_000_000 + (reply.integer(3) ?? 0)
        bench.answer(transmission, reply)
        #expect(bench.admitted == 0 && bench.refused == 2)
        let confirmation = try #require(bench.next())
        bench.answer(confirmation, try bench.execute(confirmation))
        #expect(bench.admitted == 3)
        #expect(try bench.redis("ZCOUNT", bench.key, "\(time)", "\(time)") == "3")
        #expect(bench.everyoneAnsweredOnce)
    }

    @Test("survivors who were dropped before their confirmation are decided again")
    func dropped() throws {
        let bench = try MachineBench(limit: 3, timeout: .seconds(5))
        try bench.connect(error: .milliseconds(-200))
        bench.ask(times: 3)
        let transmission = try #require(bench.next())
        bench.answer(transmission, try bench.execute(transmission))
        let confirmation = try #require(bench.next())
        // Another node takes them for entries that have left, and admits two of its own.
        try bench.redis("DEL", bench.key)
        let future = try bench.serverSeconds() * 1_000_000 + 900_000
        try bench.redis("ZADD", bench.key, "\(future)", "a", "\(future)", "b")
        bench.answer(confirmation, try bench.execute(confirmation))
        #expect(bench.admitted == 0)
        try bench.pump()
        #expect(bench.everyoneAnsweredOnce)
        #expect(bench.admitted == 1)
        #expect(try bench.inWindow() == 3)
    }

    @Test("a transaction before its lower bound admits nobody; with the clock set right, they are decided again")
    func early() throws {
        let bench = try MachineBench(limit: 3, timeout: .seconds(5))
        try bench.connect(error: .seconds(30))
        bench.ask(times: 2)
        let transmission = try #require(bench.next())
        bench.answer(transmission, try bench.execute(transmission))
        #expect(bench.admitted == 0)
        try bench.pump()
        #expect(bench.admitted == 2)
        #expect(try bench.inWindow() == 2)
        #expect(bench.everyoneAnsweredOnce)
    }

    @Test("a server that hung when it was connected to is asked the time again before anybody is scored by its clock")
    func vagueClock() throws {
        let bench = try MachineBench(limit: 3, timeout: .milliseconds(50))
        let time = try bench.redis.time()
        bench.machine.connected(
            ServerTimeSample(sentAt: bench.now - .milliseconds(900), receivedAt: bench.now, time: time))
        #expect(!bench.machine.breaker.mayAsk)
        #expect(bench.ask() != .pending)
        let probe = try #require(bench.probe())
        bench.answer(probe, try bench.execute(probe))
        #expect(bench.machine.breaker.mayAsk)
        bench.ask()
        try bench.pump()
        #expect(bench.admitted == 1)
        let entry = try bench.redis("ZRANGE", bench.key, "0", "0", "WITHSCORES").split(separator: "'")
        let score = try #require(entry.compactMap { Int64($0) }.last)
        #expect(score < (try bench.redis.time()).microseconds + 500_000)
    }

    @Test("an entry whose score is far ahead, since its node knew the clock no better, is nobody's to clear away")
    func vagueScore() throws {
        let bench = try MachineBench(limit: 1, window: .milliseconds(20), timeout: .seconds(5))
        let time = try bench.redis.time()
        bench.machine.connected(
            ServerTimeSample(sentAt: bench.now - .milliseconds(3_900), receivedAt: bench.now, time: time))
        bench.ask()
        try bench.pump()
        #expect(bench.admitted == 1)
        let other = try MachineBench(
            limit: 1, window: .milliseconds(20), worker: 1, timeout: .seconds(5), server: bench.server)
        try other.connect()
        while !other.machine.clocks[0].isSettled(at: other.now) || other.nextToken < 100 {
            other.ask()
            try other.pump()
        }
        #expect(other.admitted == 0)
        #expect(other.machine.takeEvents() == [])
        #expect(try bench.inWindow() == 1)
    }

    @Test("entries from the future are cleared away, so that a clock that was set back locks nobody out")
    func future() throws {
        let bench = try MachineBench(limit: 2, window: .milliseconds(200))
        let begin = SystemClock.monotonic()
        try bench.connect()
        let future = try bench.serverSeconds() + 3_600
        try bench.redis("ZADD", bench.key, "\(future)000000", "a", "\(future)000001", "b")
        bench.ask()
        try bench.pump()
        #expect(bench.refused == 1)
        // As far as this machine knows, the clock was set a moment ago, and the entries may be as young: they stay until
        // everybody has heard of it and a window has passed.
        while bench.admitted == 0 {
            bench.ask()
            try bench.pump()
            guard SystemClock.monotonic() - begin < .seconds(10) else { break }
        }
        #expect(SystemClock.monotonic() - begin >= .milliseconds(200))
        bench.ask()
        try bench.pump()
        #expect(bench.admitted == 2)
    }

    @Test("everyone is answered exactly once, whatever is slow, lost or refused")
    func exactlyOnce() throws {
        let seed = SystemClock.random64()
        var random = SplitMix64(seed: seed)
        let bench = try MachineBench(limit: 5, window: .milliseconds(20), rule: .share)
        var underWay: [(Transmission, Reply?)] = []
        var connected = false
        for _ in 0..<6_000 {
            switch Int.random(in: 0..<100, using: &random) {
            case 0..<45: bench.ask(times: Int.random(in: 1...4, using: &random))
            case 45..<70:
                while connected, let transmission = bench.next() { underWay.append((transmission, nil)) }
                if !connected { _ = bench.next() }
            case 70..<88:
                guard !underWay.isEmpty else { continue }
                let (transmission, _) = underWay.removeFirst()
                if Int.random(in: 0..<12, using: &random) == 0 {
                    bench.machine.failed(transmission.token, .refused("LOADING"), at: bench.now)
                } else {
                    bench.answer(transmission, try bench.execute(transmission))
                }
            case 88..<92: bench.ahead = bench.ahead + .milliseconds(Int64.random(in: 0...30, using: &random))
            case 92..<95: bench.machine.expire(through: bench.now, at: bench.now)
            case 95..<97:
                guard connected, let probe = bench.machine.probe(at: bench.now) else { continue }
                underWay.append((probe, nil))
            case 97:
                connected = false
                for (transmission, _) in underWay {
                    if Bool.random(using: &random) { _ = try bench.execute(transmission) }
                    bench.machine.failed(transmission.token, .lost("x"), at: bench.now)
                }
                underWay = []
                bench.machine.disconnected(.lost("x"), at: bench.now)
            default:
                guard !connected else { continue }
                connected = true
                try bench.connect(error: .milliseconds(Int64.random(in: -3...3, using: &random)))
            }
            bench.deliver()
        }
        for (transmission, _) in underWay { bench.machine.failed(transmission.token, .lost("x"), at: bench.now) }
        bench.machine.disconnected(.lost("x"), at: bench.now)
        bench.expireAll()
        #expect(bench.everyoneAnsweredOnce, "seed \(seed)")
        #expect(bench.machine.requests.count == 0, "seed \(seed)")
        #expect(bench.machine.subjects.count == 0, "seed \(seed)")
        #expect(bench.machine.flights.count == 0, "seed \(seed)")
        #expect(bench.machine.entriesUnderWay == 0, "seed \(seed)")
    }
}
