// Several policies over one request, with a real Redis behind the machine, and in memory.

import Hiredis
import Identity
import LinuxIO
import Primitives
import RedisClient
import TestSupport
import Testing

@testable import RateLimiting

private final class JointAsker: LimitRequester {
    var reports: [UInt64: [PolicyReport]] = [:]
    func limitDecided(token: UInt64, verdict: Verdict) { Issue.record("asked of several, answered by one") }
    func limitsDecided(token: UInt64, _ report: PolicyReport) { reports[token, default: []].append(report) }
}

private let client = IPAddress(v4: 0x0a00_0001)

/// Two policies, of three requests a client and of two in all, in 10 seconds.
private final class JoinBench {
    let server: RedisServer
    let redis: RedisTestClient
    let context: LimiterContext
    var machine: WindowMachine
    let asker = JointAsker()
    var ahead = TimeSpan.zero
    var token: UInt64 = 0
    var unanswered: [Transmission] = []

    static func policies(shadow: Bool = false) -> [Policy] {
        [
            Policy(name: "client", limit: 3, window: .seconds(10), burst: 3),
            Policy(
                name: "all", limit: 2, window: .seconds(10), burst: 2, key: .global, mode: shadow ? .shadow : .enforce),
        ]
    }

    init(rule: LossRule = .closed, shadow: Bool = false) throws {
        server = try RedisServer()
        redis = try server.client()
        context = LimiterContext(
            policies: Self.policies(shadow: shadow), services: [], lossRule: rule, timeout: .milliseconds(50),
            boot: 0xb007, seed: 5)
        machine = WindowMachine(context, worker: 0)
    }

    var now: MonotonicTime { SystemClock.monotonic() + ahead }
    var wantsToSend: Bool { machine.wantsToSend }
    var requests: Int { machine.requests.count }

    func connect() throws {
        let sent = now
        let time = try redis.time()
        machine.connected(ServerTimeSample(sentAt: sent, receivedAt: now, time: time))
    }

    func next() -> Transmission? { machine.next(at: now) }
    func send() throws -> Transmission { try #require(next()) }

    /// Asks for a client; returns the token.
    @discardableResult
    func ask(_ address: IPAddress = client) -> UInt64 {
        token += 1
        let subjects = [SubjectKey(address, policy: 0), SubjectKey(globalOf: 1)]
        switch machine.ask(all: subjects, asker, token: token, at: now) {
        case .decided(let report): asker.limitsDecided(token: token, report)
        case .pending: break
        }
        return token
    }

    func execute(_ transmission: Transmission) throws -> Reply {
        switch transmission.form {
        case .command: try redis.command { machine.write(transmission, to: &$0) }
        case .transaction: try redis.transaction { machine.write(transmission, to: &$0) }
        }
    }

    func answer(_ transmission: Transmission) throws {
        machine.replied(transmission.token, try execute(transmission), at: now)
        // On a busy machine it may have been late: it is confirmed at once.
        while case .confirmation = machine.ready.first {
            let confirmation = try send()
            machine.replied(confirmation.token, try execute(confirmation), at: now)
        }
        deliver()
    }

    func pump() throws {
        while let transmission = machine.next(at: now) { try answer(transmission) }
        deliver()
    }

    func deliver() {
        var answers: [LimitAnswer] = []
        machine.takeAnswers(into: &answers)
        for answer in answers {
            guard let report = machine.takeReport(answer) else {
                Issue.record("no report")
                continue
            }
            answer.requester.limitsDecided(token: answer.token, report)
        }
    }

    func report(_ token: UInt64) throws -> PolicyReport {
        let reports = try #require(asker.reports[token])
        #expect(reports.count == 1)
        return reports[0]
    }

    func refusers(_ token: UInt64) throws -> [Int] {
        let report = try report(token)
        return (0..<report.count).filter { report[$0].isRefused }.map { Int(report[$0].policy) }
    }

    func entries(_ client: String = "10.0.0.1") throws -> [Int] {
        try ["rate_limit:client:3/10s:ip:\(client)", "rate_limit:all:2/10s:global"].map {
            Int(try redis("ZCARD", $0)) ?? -1
        }
    }

    /// Whether nothing is left over of any request.
    var isClean: Bool { machine.joins.count == 0 && machine.parts.count == 0 && machine.reports.count == 0 }
}

@Suite("Several policies over one request")
struct JoinTests {
    @Test("all are asked in one write; what one admitted and another refused is given back in the next")
    func givenBack() throws {
        let bench = try JoinBench()
        try bench.connect()
        for _ in 0..<2 { bench.ask() }
        // Both transactions are ready before any answer.
        let first = [try bench.send(), try bench.send()]
        #expect(bench.next() == nil)
        for transmission in first { try bench.answer(transmission) }
        #expect(try !bench.report(1).isRefused && !bench.report(2).isRefused)
        #expect(try bench.entries() == [2, 2])
        // Another node's memory would not know: neither does this one any more.
        bench.context.fullWindows.forget(SubjectKey(globalOf: 1))
        let third = bench.ask()
        let second = [try bench.send(), try bench.send()]
        for transmission in second { try bench.answer(transmission) }
        #expect(try bench.refusers(third) == [1])
        #expect(try bench.entries() == [3, 2])
        #expect(bench.wantsToSend)
        try bench.pump()
        #expect(try bench.entries() == [2, 2])
        #expect(bench.isClean)
        #expect(bench.context.policyCounts.map(\.refused) == [0, 1])
    }

    @Test("a full window that is known refuses without a question to anyone")
    func knownFull() throws {
        let bench = try JoinBench()
        try bench.connect()
        for _ in 0..<2 { bench.ask() }
        try bench.pump()
        for _ in 0..<100 {
            let token = bench.ask()
            #expect(try bench.refusers(token) == [1])
        }
        #expect(!bench.wantsToSend)
        #expect(try bench.entries() == [2, 2])
        #expect(bench.context.policyCounts.map(\.refused) == [0, 100])
    }

    @Test("when the time of a full window has come, those who reach the worker in the same turn ask along")
    func sameTurn() throws {
        let bench = try JoinBench()
        try bench.connect()
        for _ in 0..<2 { bench.ask() }
        try bench.pump()
        _ = try bench.redis("DEL", "rate_limit:client:3/10s:ip:10.0.0.1", "rate_limit:all:2/10s:global")
        let before = bench.now + .milliseconds(-10)
        bench.context.fullWindows.remember(
            SubjectKey(globalOf: 1), freesAt: before, emptyAt: before + .seconds(60), at: before)
        let crowd = (0..<3).map { _ in bench.ask() }
        try bench.pump()
        #expect(try crowd.map { try bench.report($0).isRefused } == [false, false, true])
        #expect(try bench.entries() == [2, 2])
        #expect(bench.isClean)
    }

    @Test("of a crowd as many pass as the tightest policy lets in, and nothing of the others remains")
    func crowd() throws {
        let bench = try JoinBench()
        try bench.connect()
        let tokens = (0..<50).map { _ in bench.ask() }
        try bench.pump()
        #expect(bench.asker.reports.count == 50)
        let admitted = try tokens.filter { try !bench.report($0).isRefused }.count
        #expect(admitted <= 2)
        #expect(try bench.entries() == [admitted, admitted])
        #expect(bench.isClean)
    }

    @Test("what must be given back outlives the connection")
    func lostBeforeGivingBack() throws {
        let bench = try JoinBench()
        try bench.connect()
        for _ in 0..<2 { bench.ask() }
        try bench.pump()
        bench.context.fullWindows.forget(SubjectKey(globalOf: 1))
        bench.ask()
        for transmission in [try bench.send(), try bench.send()] { try bench.answer(transmission) }
        let lost = try bench.send()
        bench.machine.failed(lost.token, .lost("cut"), at: bench.now)
        bench.machine.disconnected(.lost("cut"), at: bench.now)
        #expect(try bench.entries() == [3, 2])
        try bench.connect()
        try bench.pump()
        #expect(try bench.entries() == [2, 2])
    }

    @Test(
        "one answer too late: the loss rule decides all of it, and what is executed later is put right",
        arguments: [LossRule.open, .closed])
    func late(rule: LossRule) throws {
        let bench = try JoinBench(rule: rule)
        try bench.connect()
        let token = bench.ask()
        let sent = [try bench.send(), try bench.send()]
        try bench.answer(sent[0])
        bench.ahead = .milliseconds(50)
        bench.machine.expire(through: bench.now, at: bench.now)
        bench.deliver()
        #expect(try bench.report(token).isRefused == (rule == .closed))
        try bench.answer(sent[1])
        try bench.pump()
        #expect(try bench.entries() == (rule == .closed ? [0, 0] : [1, 1]))
        #expect(bench.isClean)
        #expect(bench.requests == 0)
    }

    @Test("without Redis the shares of all count, and a refusal by one takes nothing from another")
    func share() throws {
        let bench = try JoinBench(rule: .share)
        // Two in all.
        for _ in 0..<5 { bench.ask() }
        #expect(bench.asker.reports.values.joined().filter { !$0.isRefused }.count == 2)
        // The client's own share of three still has one, which a policy of its own would give.
        #expect(bench.context.memories[0].admit(SubjectKey(client), share: 3, at: bench.now) == .admit(remaining: 0))
        // Back again, what passed is charged to both.
        try bench.connect()
        try bench.pump()
        #expect(try bench.entries() == [2, 2])
    }

    @Test("a connection that breaks in between refuses or admits as a whole")
    func brokenMidway() throws {
        let bench = try JoinBench(rule: .closed)
        try bench.connect()
        let token = bench.ask()
        let sent = [try bench.send(), try bench.send()]
        try bench.answer(sent[0])
        bench.machine.failed(sent[1].token, .lost("cut"), at: bench.now)
        bench.machine.disconnected(.lost("cut"), at: bench.now)
        bench.deliver()
        #expect(try bench.report(token).isRefused)
        try bench.connect()
        try bench.pump()
        #expect(try bench.entries() == [0, 0])
        #expect(bench.isClean)
    }

    @Test("who gathers when the connection breaks is answered too")
    func brokenWhileGathering() throws {
        let bench = try JoinBench(rule: .open)
        try bench.connect()
        let token = bench.ask()
        bench.machine.disconnected(.lost("cut"), at: bench.now)
        bench.deliver()
        #expect(try !bench.report(token).isRefused)
        try bench.connect()
        try bench.pump()
        #expect(try bench.entries() == [1, 1])
        #expect(bench.isClean)
        #expect(bench.requests == 0)
    }

    @Test("a policy in shadow mode counts, and refuses nobody")
    func shadow() throws {
        let bench = try JoinBench(shadow: true)
        try bench.connect()
        let tokens = (0..<4).map { _ in bench.ask() }
        try bench.pump()
        #expect(try tokens.map { try bench.report($0).isRefused } == [false, false, false, true])
        #expect(try tokens.prefix(3).map { try bench.report($0).isRefusedInShadow } == [false, false, true])
        #expect(try bench.entries() == [3, 2])
        #expect(bench.context.policyCounts.map(\.refused)[1] >= 1)
    }

    @Test("in memory, a refusal by one bucket gives the others their tokens back")
    func buckets() {
        let store = TokenBucketStore(policies: JoinBench.policies(), seed: 1)
        let now = MonotonicTime(nanoseconds: 1)
        let subjects = [SubjectKey(client, policy: 0), SubjectKey(globalOf: 1)]
        let reports = (0..<5).map { _ in store.take(all: subjects, at: now) }
        #expect(reports.map(\.isRefused) == [false, false, true, true, true])
        #expect(!reports[4][0].isRefused && reports[4][1].isRefused)
        #expect(store.take(subjects[0], at: now) == .admit(remaining: 0))
        #expect(store.policyCounts.map(\.refused) == [0, 3])
    }
}

@Suite("The fields of several policies")
struct PolicyFieldTests {
    private static func text(_ write: (inout ByteBuffer) -> Void) -> String {
        var buffer = ByteBuffer()
        write(&buffer)
        return String(decoding: buffer.array, as: UTF8.self)
    }

    @Test("one item a policy; Retry-After is the longest wait, rounded up")
    func fields() {
        let fields = RateLimitFields([
            Policy(name: "a", limit: 5, window: .seconds(60), burst: 5),
            Policy(name: "b", limit: 7, window: .milliseconds(100), burst: 7),
            Policy(name: "c", limit: 9, window: .seconds(1), burst: 9, mode: .shadow),
        ])
        var report = PolicyReport()
        report.add(.refuse(retryAfter: .milliseconds(41_001)), of: 0, isShadow: false)
        report.add(.refuse(retryAfter: .milliseconds(90)), of: 1, isShadow: false)
        report.add(.refuse(retryAfter: .seconds(99)), of: 2, isShadow: true)
        #expect(
            Self.text { fields.write(report, to: &$0) }
                == "RateLimit-Policy: \"a\";q=5;w=60, \"b\";q=7;w=1\r\nRateLimit: \"a\";r=0;t=42, \"b\";r=0;t=1\r\n"
                + "Retry-After: 42\r\n")
        #expect(Self.text { fields.writeViolated(report, to: &$0) } == ",\"violated-policies\":[\"a\",\"b\"]")
        #expect(report.verdict == .refuse(retryAfter: .milliseconds(41_001)))

        // What is given back is there again, and who was not asked is named.
        var other = PolicyReport()
        other.add(.refuse(retryAfter: .seconds(1)), of: 0, isShadow: false)
        other.add(.admit(remaining: 3), of: 1, isShadow: false, cost: 2)
        #expect(
            Self.text { fields.write(other, to: &$0) }
                == "RateLimit-Policy: \"a\";q=5;w=60, \"b\";q=7;w=1\r\nRateLimit: \"a\";r=0;t=1, \"b\";r=5\r\n"
                + "Retry-After: 1\r\n")
        var short = PolicyReport()
        short.mention(0, isShadow: false)
        short.add(.refuse(retryAfter: .seconds(1)), of: 1, isShadow: false)
        short.mention(2, isShadow: true)
        #expect(
            Self.text { fields.write(short, to: &$0) }
                == "RateLimit-Policy: \"a\";q=5;w=60, \"b\";q=7;w=1\r\nRateLimit: \"b\";r=0;t=1\r\n"
                + "Retry-After: 1\r\n")
    }
}

@Suite("A first pass in the node")
struct LocalPassTests {
    @Test("a flood is refused before Redis is asked: twice the limit goes through to it")
    func flood() {
        let policies = [
            Policy(name: "a", limit: 5, window: .seconds(10), burst: 5, isLocalFirst: true),
            Policy(name: "b", limit: 100, window: .seconds(1), burst: 1, key: .global),
        ]
        let context = LimiterContext(
            policies: policies, services: [], lossRule: .closed, timeout: .seconds(1), boot: 1, seed: 2)
        var machine = WindowMachine(context, worker: 0)
        let now = MonotonicTime(nanoseconds: 1_000_000_000)
        let time = RedisTime(microseconds: 1_700_000_000_000_000)
        machine.connected(ServerTimeSample(sentAt: now, receivedAt: now, time: time))
        let asker = JointAsker()
        var decided: [PolicyReport] = []
        for token in 0..<25 {
            let subjects = [SubjectKey(client, policy: 0), SubjectKey(globalOf: 1)]
            switch machine.ask(all: subjects, asker, token: UInt64(token), at: now) {
            case .decided(let report): decided.append(report)
            case .pending: break
            }
        }
        #expect(decided.count == 15)
        for report in decided {
            #expect(report.count == 2 && report[0].policy == 0 && report[0].seconds >= 10)
            #expect(!report[1].isRefused && report.remaining(1) == nil)
        }
        // Another client is none of it.
        let other = [SubjectKey(IPAddress(v4: 7), policy: 0), SubjectKey(globalOf: 1)]
        guard case .pending = machine.ask(all: other, asker, token: 99, at: now) else {
            Issue.record("refused for another's flood")
            return
        }
    }

    @Test("nobody who stays within the limit ever meets it", arguments: [1, 7, 50])
    func generous(limit: Int) {
        let policy = Policy(name: "a", limit: limit, window: .seconds(1), burst: limit, isLocalFirst: true)
        let context = LimiterContext(policy, lossRule: .closed, timeout: .seconds(1), boot: 1, seed: 2)
        let subject = SubjectKey(client)
        // The whole limit at the end of one window, and again at the start of the next, for a while.
        for second in 0..<20 {
            for half in [0, 999] {
                guard second % 2 == (half == 0 ? 0 : 1) else { continue }
                let now = MonotonicTime(nanoseconds: Int64(second) * 1_000_000_000 + Int64(half) * 1_000_000 + 1)
                for _ in 0..<limit { #expect(!context.localRefusal([subject], [], at: now).isRefused) }
            }
        }
    }
}
