// Requests that run at once, with a real Redis behind the machine, and in memory.

import Hiredis
import Identity
import LinuxIO
import Primitives
import RedisClient
import TestSupport
import Testing

@testable import RateLimiting

private let client = IPAddress(v4: 0x0a00_0001)
private let subject = SubjectKey(client, policy: 0)

private final class LeaseAsker: LimitRequester {
    var reports: [UInt64: PolicyReport] = [:]
    func limitDecided(token: UInt64, verdict: Verdict) { Issue.record("asked of several, answered by one") }
    func limitsDecided(token: UInt64, _ report: PolicyReport) {
        #expect(reports[token] == nil)
        reports[token] = report
    }
}

/// Two requests at once, of any client; a lease lasts for 300 ms.
private final class LeaseBench {
    let server: RedisServer
    let redis: RedisTestClient
    let context: LimiterContext
    var machine: WindowMachine
    let asker = LeaseAsker()
    var token: UInt64 = 0
    var ahead = TimeSpan.zero

    init(rule: LossRule = .closed, server: RedisServer? = nil, boot: UInt64 = 1) throws {
        self.server = try server ?? RedisServer()
        redis = try self.server.client()
        context = LimiterContext(
            policies: [Policy(name: "runs", limit: 2, window: .milliseconds(300), burst: 2, form: .leases)],
            services: [], lossRule: rule, timeout: .milliseconds(50), boot: boot, seed: 5)
        machine = WindowMachine(context, worker: 0)
    }

    var now: MonotonicTime { SystemClock.monotonic() + ahead }

    func connect() throws {
        let sent = now
        let time = try redis.time()
        machine.connected(ServerTimeSample(sentAt: sent, receivedAt: now, time: time))
    }

    @discardableResult
    func ask() -> UInt64 {
        token += 1
        switch machine.ask(all: [subject], asker, token: token, at: now) {
        case .decided(let report): asker.limitsDecided(token: token, report)
        case .pending: break
        }
        return token
    }

    func answer(_ transmission: Transmission) throws {
        let reply: Reply
        switch transmission.form {
        case .command: reply = try redis.command { machine.write(transmission, to: &$0) }
        case .transaction: reply = try redis.transaction { machine.write(transmission, to: &$0) }
        }
        machine.replied(transmission.token, reply, at: now)
        deliver()
    }

    func next() -> Transmission? { machine.next(at: now) }

    func pump() throws {
        while let transmission = next() { try answer(transmission) }
        deliver()
    }

    func deliver() {
        var answers: [LimitAnswer] = []
        machine.takeAnswers(into: &answers)
        for answer in answers {
            guard let report = machine.takeReport(answer) else { continue }
            answer.requester.limitsDecided(token: answer.token, report)
        }
    }

    /// The lease of a request that was let in.
    func lease(_ token: UInt64) throws -> Int32 {
        let report = try #require(asker.reports[token])
        #expect(!report.isRefused && report.lease >= 0)
        return report.lease
    }

    func end(_ token: UInt64) throws {
        let at = now
        var ended: [LeaseKeeper.Lease] = []
        machine.leases.end(try lease(token)) { ended.append($0) }
        for lease in ended { machine.release(lease, at: at) }
    }

    func renewAll() throws {
        machine.leases.hurry(at: now)
        while let (place, lease) = machine.leases.takeDue(at: now) { machine.renew(place, lease, at: now) }
        try pump()
    }

    func entries() throws -> Int { Int(try redis("ZCARD", "rate_limit:runs:2/concurrent:ip:10.0.0.1")) ?? -1 }
    func isRefused(_ token: UInt64) throws -> Bool { try #require(asker.reports[token]).isRefused }
}

@Suite("Requests at once")
struct LeaseTests {
    @Test("so many run at once; one that ends makes room for another, also on another node")
    func room() throws {
        let bench = try LeaseBench()
        let other = try LeaseBench(server: bench.server, boot: 2)
        try bench.connect()
        try other.connect()
        let first = bench.ask()
        let second = other.ask()
        try bench.pump()
        try other.pump()
        let third = bench.ask()
        try bench.pump()
        #expect(try bench.isRefused(third))
        #expect(bench.asker.reports[third]?[0].seconds == 1)
        #expect(try bench.entries() == 2)
        #expect(bench.context.held.count(subject) == 1)
        try other.end(second)
        try other.pump()
        #expect(try bench.entries() == 1)
        // Nobody waits for longer than a moment to ask again.
        bench.ahead = .milliseconds(6)
        let fourth = bench.ask()
        try bench.pump()
        #expect(try !bench.isRefused(fourth))
        for token in [first, fourth] { try bench.end(token) }
        try bench.pump()
        #expect(try bench.entries() == 0)
        #expect(bench.context.held.count(subject) == 0)
        #expect(bench.machine.leases.count == 0)
        #expect(bench.machine.leases.nextDue == nil)
    }

    @Test("a lease is renewed as long as its request runs, and leaves by itself when its node is gone")
    func renewal() throws {
        let bench = try LeaseBench()
        try bench.connect()
        let tokens = [bench.ask(), bench.ask()]
        try bench.pump()
        let due = try #require(bench.machine.leases.nextDue)
        #expect(due - bench.now <= .milliseconds(100))
        let other = try LeaseBench(server: bench.server, boot: 2)
        try other.connect()
        let begin = SystemClock.monotonic()
        // Three times as long as a lease lasts.
        while SystemClock.monotonic() - begin < .milliseconds(900) {
            try bench.renewAll()
            other.context.fullWindows.forget(subject)
            let token = other.ask()
            try other.pump()
            #expect(try other.isRefused(token))
        }
        for token in tokens { _ = try bench.lease(token) }
        // Its node is killed: nobody renews.
        try eventually("the slots come back") {
            other.context.fullWindows.forget(subject)
            let token = other.ask()
            try other.pump()
            return try !other.isRefused(token)
        }
    }

    @Test("what Redis has forgotten counts again with the next renewal; what has ended does not")
    func forgotten() throws {
        let bench = try LeaseBench()
        try bench.connect()
        let tokens = [bench.ask(), bench.ask()]
        try bench.pump()
        try bench.redis("FLUSHALL")
        try bench.renewAll()
        #expect(try bench.entries() == 2)
        try bench.redis("FLUSHALL")
        // On its way when the request ends.
        bench.machine.leases.hurry(at: bench.now)
        let at = bench.now
        while let (place, lease) = bench.machine.leases.takeDue(at: at) {
            bench.machine.renew(place, lease, at: at)
        }
        let first = try #require(bench.next())
        try bench.end(tokens[0])
        try bench.end(tokens[1])
        try bench.answer(first)
        try bench.pump()
        #expect(try bench.entries() == 0)
    }

    @Test("without Redis the node's own requests count; back again, they are in the window")
    func share() throws {
        let bench = try LeaseBench(rule: .share)
        let tokens = (0..<4).map { _ in bench.ask() }
        #expect(try tokens.map { try bench.isRefused($0) } == [false, false, true, true])
        try bench.end(tokens[0])
        let more = bench.ask()
        #expect(try !bench.isRefused(more))
        try bench.connect()
        try bench.pump()
        #expect(try bench.entries() == 2)
        try bench.end(tokens[1])
        try bench.end(more)
        try bench.pump()
        #expect(try bench.entries() == 0)
        #expect(bench.context.held.count(subject) == 0)
    }

    @Test("what was under way when the connection broke is put right before what came after it")
    func order() throws {
        let bench = try LeaseBench(rule: .share)
        let token = bench.ask()
        try bench.connect()
        let charge = try #require(bench.next())
        // Its request ends while its lease is on its way, and nobody knows whether that has arrived.
        try bench.end(token)
        bench.machine.failed(charge.token, .lost("reset"), at: bench.now)
        bench.machine.disconnected(.lost("reset"), at: bench.now)
        try bench.connect()
        try bench.pump()
        #expect(try bench.entries() == 0)
    }

    @Test("without Redis nothing is renewed, so that nothing else is dropped for it")
    func noRenewalsWithoutRedis() throws {
        let bench = try LeaseBench(rule: .share)
        _ = try bench.lease(bench.ask())
        for _ in 0..<10 { try bench.renewAll() }
        #expect(bench.machine.entries.count == 1)
        // All are as soon as it can be asked, however it comes about.
        var isBehind = [bench.machine.takeIsBehind()]
        try bench.connect()
        isBehind += [bench.machine.takeIsBehind(), bench.machine.takeIsBehind()]
        bench.machine.refused(.refused("LOADING"))
        try bench.renewAll()
        isBehind.append(bench.machine.takeIsBehind())
        bench.machine.breaker.probeAnswered(inTime: true)
        isBehind.append(bench.machine.takeIsBehind())
        #expect(isBehind == [false, true, false, false, true])
    }

    @Test("while requests run, Redis is looked at ten times a second for whether it still knows of them")
    func lookedAt() throws {
        let bench = try LeaseBench()
        try bench.connect()
        #expect(bench.machine.probePause == LossBreaker.idlePause)
        let token = bench.ask()
        try bench.pump()
        #expect(bench.machine.probePause == LossBreaker.markerPause)
        try bench.end(token)
        try bench.pump()
        #expect(bench.machine.probePause == LossBreaker.idlePause)
    }

    @Test("an answer that comes too late leaves one entry, which goes with its request", arguments: [true, false])
    func late(endsFirst: Bool) throws {
        let bench = try LeaseBench(rule: .open)
        try bench.connect()
        let token = bench.ask()
        let sent = try #require(bench.next())
        bench.ahead = .milliseconds(50)
        bench.machine.expire(through: bench.now, at: bench.now)
        bench.deliver()
        #expect(try bench.lease(token) >= 0)
        if endsFirst { try bench.end(token) }
        try bench.answer(sent)
        try bench.pump()
        if !endsFirst {
            #expect(try bench.entries() == 1)
            try bench.end(token)
            try bench.pump()
        }
        #expect(try bench.entries() == 0)
        #expect(bench.machine.requests.count == 0 && bench.machine.parts.count == 0)
    }

    @Test("in memory too; and a refusal by another policy gives the slot back")
    func memory() {
        let policies = [
            Policy(name: "runs", limit: 2, window: .seconds(10), burst: 2, form: .leases),
            Policy(name: "all", limit: 3, window: .seconds(10), burst: 3, key: .global),
        ]
        let store = TokenBucketStore(policies: policies, seed: 1)
        let keeper = store.makeKeeper()
        let now = MonotonicTime(nanoseconds: 1)
        func take() -> PolicyReport {
            store.take(all: [subject, SubjectKey(globalOf: 1)], leases: keeper, at: now)
        }
        let first = take()
        #expect(!first.isRefused && first.lease >= 0 && first[0].remaining == 1)
        #expect(!take().isRefused)
        let third = take()
        #expect(third.isRefused && third[0].isRefused && !third[1].isRefused && third.lease == -1)
        keeper.end(first.lease) { _ in }
        #expect(!take().isRefused)
        keeper.end(0) { _ in }
        // The other policy has none left, and takes no slot of this one.
        for _ in 0..<5 { #expect(take()[1].isRefused) }
        #expect(keeper.count == 1)
    }

    @Test("in memory, what runs counts on when there are more policies; and a request that has ended leaves nothing")
    func memoryChanges() {
        let all = Policy(name: "all", limit: 1_000, window: .seconds(10), burst: 1_000, key: .global)
        let runs = Policy(name: "runs", limit: 2, window: .seconds(10), burst: 2, form: .leases)
        let more = Policy(name: "more", limit: 2, window: .seconds(10), burst: 2, form: .leases)
        let now = MonotonicTime(nanoseconds: 1)
        let store = TokenBucketStore(policies: [runs], seed: 1)
        let keeper = store.makeKeeper()
        func take(_ store: TokenBucketStore, _ policies: [UInt8]) -> PolicyReport {
            store.take(all: policies.map { SubjectKey(client, policy: $0) }, leases: keeper, at: now)
        }
        let first = take(store, [0])
        #expect(first.lease >= 0)
        guard let after = TokenBucketStore(policies: [runs, all, more], services: [], before: store) else {
            Issue.record("the same policies, and two behind them")
            return
        }
        #expect(after.continues(store))
        let second = take(after, [0, 2])
        #expect(!second.isRefused && second.lease >= 0)
        #expect(take(after, [0, 2])[0].isRefused)
        let third = take(after, [2])
        #expect(!third.isRefused)
        #expect(take(after, [2]).isRefused)
        for report in [first, second, third] { keeper.end(report.lease) { _ in } }
        #expect(keeper.count == 0)
        let bytes = keeper.bytes
        for _ in 0..<10_000 { keeper.end(take(after, [0, 2]).lease) { _ in } }
        #expect(keeper.bytes == bytes)
        #expect(keeper.nextDue == nil)
    }
}
