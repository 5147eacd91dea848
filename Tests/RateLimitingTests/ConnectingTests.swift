// A server that is connected to for the first time: requests wait for that, but not longer than for an answer, and not
// in any number.

import Identity
import Primitives
import RedisClient
import TestSupport
import Testing

@testable import RateLimiting

@Suite("Requests for a server that is still being connected to")
struct ConnectingTests {
    private static func bench() throws -> MachineBench {
        let bench = try MachineBench()
        bench.machine.connecting(at: bench.now)
        return bench
    }

    @Test("they wait, and the window decides them when it can be asked")
    func waiting() throws {
        let bench = try Self.bench()
        for _ in 0..<2 { #expect(bench.ask() == .pending) }
        var wantsToSend = bench.machine.wantsToSend
        #expect(!wantsToSend)
        #expect(bench.next() == nil)
        try bench.connect()
        wantsToSend = bench.machine.wantsToSend
        #expect(wantsToSend)
        try bench.pump()
        #expect(bench.admitted == 2)
        #expect(try bench.inWindow() == 2)
    }

    @Test("where that takes longer than a request may wait, the loss rule decides them, and at once whoever comes then")
    func patience() throws {
        let bench = try Self.bench()
        #expect(bench.ask() == .pending)
        bench.expireAll()
        #expect(bench.refused == 1)
        #expect(bench.ask() != .pending)
        let hasEvents = bench.machine.hasEvents
        #expect(!hasEvents)
        // It may still come about.
        try bench.connect()
        #expect(bench.ask() == .pending)
        try bench.pump()
        #expect(bench.admitted == 1)
        #expect(bench.everyoneAnsweredOnce)
    }

    @Test("where it fails, the loss rule decides them at once")
    func failure() throws {
        let bench = try Self.bench()
        bench.ask(times: 3)
        bench.machine.disconnected(.lost("refused"), at: bench.now)
        bench.deliver()
        #expect(bench.refused == 3)
        #expect(bench.everyoneAnsweredOnce)
    }

    @Test("who was handed over waits no longer than the rest of its time, whoever waits before it")
    func handedOver() throws {
        let bench = try Self.bench()
        let deadline = bench.now + .milliseconds(10)
        #expect(bench.ask() == .pending)
        bench.nextToken += 1
        let asked = Handover.Asked(requester: bench.asker, token: bench.nextToken, deadline: deadline)
        bench.machine.take(Handover(subject: bench.subject, requests: [asked]), at: bench.now)
        let nextDeadline = bench.machine.nextDeadline
        #expect(nextDeadline == deadline)
        bench.machine.expire(through: deadline, at: bench.now)
        bench.deliver()
        #expect(bench.asker.verdicts.keys.sorted() == [2])
        try bench.connect()
        try bench.pump()
        #expect(bench.admitted == 1)
        #expect(bench.everyoneAnsweredOnce)
    }

    @Test("the loss rule decides those for whom there is no room, and they take none from those who come later")
    func bound() throws {
        let bench = try Self.bench()
        func waits(_ client: Int) -> Bool {
            bench.subject = SubjectKey(IPAddress(v4: UInt32(client)))
            return bench.ask() == .pending
        }
        let clients = 0..<(WindowMachine.subjectsMax + WindowMachine.connectingMax)
        #expect(clients.count { waits($0) } == WindowMachine.connectingMax)
        bench.expireAll()
        try bench.connect()
        #expect(waits(clients.upperBound))
        try bench.pump()
        #expect(bench.admitted == 1)
        #expect(bench.everyoneAnsweredOnce)
    }
}
