// Parts of a request whose whole another decides, with a real Redis behind the machine.

import Hiredis
import Identity
import LinuxIO
import Primitives
import RedisClient
import TestSupport
import Testing

@testable import RateLimiting

/// One policy, of two requests in 10 seconds.
private final class PartBench {
    let server: RedisServer
    let redis: RedisTestClient
    let context: LimiterContext
    var machine: WindowMachine
    var ahead = TimeSpan.zero
    var answers: [WindowMachine.PartAnswer] = []
    let subject = SubjectKey(IPAddress(v4: 0x0a00_0001))

    init(rule: LossRule = .closed, form: PolicyForm = .window) throws {
        server = try RedisServer()
        redis = try server.client()
        context = LimiterContext(
            Policy(name: "part", limit: 2, window: .seconds(10), burst: 2, form: form), lossRule: rule,
            timeout: .milliseconds(50), boot: 0xb007, seed: 5)
        machine = WindowMachine(context, worker: 0)
    }

    var now: MonotonicTime { SystemClock.monotonic() + ahead }

    func connect() throws {
        let sent = now
        let time = try redis.time()
        machine.connected(ServerTimeSample(sentAt: sent, receivedAt: now, time: time))
    }

    func ask(_ token: UInt64) {
        switch machine.ask(part: subject, token: token, at: now) {
        case .decided(let answer): answers.append(answer)
        case .pending: break
        }
    }

    func next() -> Transmission? { machine.next(at: now) }
    func send() throws -> Transmission { try #require(next()) }
    func probe() -> Transmission? { machine.probe(at: now) }
    func refuse(_ transmission: Transmission, _ text: String) {
        machine.failed(transmission.token, .refused(text), at: now)
    }

    func answer(_ transmission: Transmission) throws {
        let reply: Reply
        switch transmission.form {
        case .command: reply = try redis.command { machine.write(transmission, to: &$0) }
        case .transaction: reply = try redis.transaction { machine.write(transmission, to: &$0) }
        }
        machine.replied(transmission.token, reply, at: now)
        answers += machine.takePartAnswers()
    }

    func pump() throws {
        while let transmission = next() { try answer(transmission) }
        answers += machine.takePartAnswers()
    }

    func finish(_ answer: WindowMachine.PartAnswer, isKept: Bool) throws {
        settle(answer, isKept: isKept)
        try pump()
    }

    func settle(_ answer: WindowMachine.PartAnswer, isKept: Bool) {
        var lease: Int32 = -1
        machine.finish(answer.part, isKept: isKept, lease: &lease, at: now)
        #expect(lease == -1)
    }

    func expire() {
        ahead = ahead + .milliseconds(50)
        machine.expire(through: now, at: now)
        answers += machine.takePartAnswers()
    }

    func entries() throws -> Int { Int(try redis("ZCARD", "rate_limit:part:2/10s:ip:10.0.0.1")) ?? -1 }
    var isClean: Bool { machine.parts.count == 0 && machine.requests.count == 0 }
}

@Suite("A part of a request")
struct PartTests {
    @Test("what was taken stays, or is given back, as the whole is decided")
    func keptOrGivenBack() throws {
        let bench = try PartBench()
        try bench.connect()
        for token in 1...3 { bench.ask(UInt64(token)) }
        try bench.pump()
        // A transaction that runs late answers first whom it refuses.
        bench.answers.sort { $0.token < $1.token }
        #expect(bench.answers.map(\.token) == [1, 2, 3])
        #expect(bench.answers.map { $0.part >= 0 } == [true, true, false])
        #expect(bench.answers[0].verdict == .admit(remaining: nil))
        #expect(try bench.entries() == 2)
        try bench.finish(bench.answers[0], isKept: true)
        try bench.finish(bench.answers[1], isKept: false)
        #expect(try bench.entries() == 1)
        #expect(bench.isClean)
        // The slot is free again, and known to be.
        bench.ask(4)
        try bench.pump()
        #expect(bench.answers[3].part >= 0)
    }

    @Test(
        "what was reserved in a count is taken off no more when the count may be another's: after a loss, or elsewhere",
        arguments: [0, 1, 2, 3, 4])
    func lostCount(way: Int) throws {
        let bench = try PartBench(form: .buckets)
        defer { bench.server.kill() }
        try bench.connect()
        // The marker is known.
        try bench.answer(try #require(bench.probe()))
        bench.ask(1)
        bench.ask(2)
        try bench.pump()
        #expect(bench.answers.map { $0.part >= 0 } == [true, true])
        // One is given back before the loss is known and one after it.
        bench.settle(bench.answers[0], isKept: false)
        switch way {
        case 0, 1:
            bench.machine.disconnected(.lost("x"), at: bench.now)
            if way == 1 { try bench.redis("FLUSHALL") }
            try bench.connect()
        case 2:
            try bench.redis("FLUSHALL")
            bench.ahead = .seconds(1)
            try bench.answer(try #require(bench.probe()))
        case 3:
            // It was on its way, to a server that takes no writes any more.
            bench.refuse(try bench.send(), "READONLY x")
            bench.machine.disconnected(.lost("x"), at: bench.now)
            try bench.connect()
        default:
            let misplaced = bench.machine.takeMisplaced { _ in false }
            #expect(misplaced.count == 1)
            for handover in misplaced { bench.machine.take(handover, at: bench.now) }
            #expect(bench.next() == nil)
            return
        }
        bench.settle(bench.answers[1], isKept: false)
        #expect(bench.next() == nil)
    }

    @Test("what the loss rule admits is charged when the whole passes, and only then", arguments: [true, false])
    func lost(isKept: Bool) throws {
        let bench = try PartBench(rule: .open)
        bench.ask(1)
        #expect(bench.answers.map(\.verdict) == [.admit(remaining: nil)])
        try bench.connect()
        try bench.finish(bench.answers[0], isKept: isKept)
        #expect(try bench.entries() == (isKept ? 1 : 0))
        #expect(bench.isClean)
    }

    @Test(
        "an answer that comes too late leaves one entry where the whole passed, and none where it did not",
        arguments: [true, false], [true, false])
    func late(isKept: Bool, finishedFirst: Bool) throws {
        let bench = try PartBench(rule: .open)
        try bench.connect()
        bench.ask(1)
        let sent = try bench.send()
        bench.expire()
        #expect(bench.answers.count == 1)
        if finishedFirst { bench.settle(bench.answers[0], isKept: isKept) }
        try bench.answer(sent)
        if !finishedFirst { bench.settle(bench.answers[0], isKept: isKept) }
        try bench.pump()
        #expect(bench.answers.count == 1)
        #expect(try bench.entries() == (isKept ? 1 : 0))
        #expect(bench.isClean)
    }

    @Test("a share that was lent and is not used is taken back")
    func share() throws {
        let bench = try PartBench(rule: .share)
        for token in 1...3 { bench.ask(UInt64(token)) }
        #expect(bench.answers.map { $0.part >= 0 } == [true, true, false])
        bench.settle(bench.answers[0], isKept: false)
        bench.ask(4)
        #expect(bench.answers[3].part >= 0)
    }

    @Test("a redirection hands the part over, and the other machine answers in its stead")
    func redirected() throws {
        let bench = try PartBench()
        try bench.connect()
        bench.ask(7)
        let sent = try bench.send()
        let redirected = bench.machine.redirected(sent.token, at: bench.now)
        let handover = try #require(redirected)
        #expect(bench.isClean)
        let other = try PartBench()
        try other.connect()
        other.machine.take(handover, at: other.now)
        try other.pump()
        #expect(other.answers.map(\.token) == [7])
        try other.finish(other.answers[0], isKept: true)
        #expect(try other.entries() == 1)
    }
}
