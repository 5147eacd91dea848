// What is to be put right in Redis, and for how long it is kept.

import Identity
import Primitives
import Testing

@testable import RateLimiting

@Suite("The list of what must be put right")
struct PuttingRightTests {
    private let asker = Asker()
    private let begin = MonotonicTime(nanoseconds: 1_000_000_000)

    /// Never connected: the loss rule admits, and each admission is to be charged.
    private func machine() -> WindowMachine {
        let policies = [
            Policy(name: "second", limit: 10, window: .seconds(1), burst: 1),
            Policy(name: "hour", limit: 10, window: .seconds(3_600), burst: 1),
        ]
        return WindowMachine(
            LimiterContext(
                policies: policies, services: [], lossRule: .open, timeout: .milliseconds(50), boot: 1, seed: 2),
            worker: 0)
    }

    private func charge(_ machine: inout WindowMachine, _ number: Int, policy: UInt8, at now: MonotonicTime) {
        let subject = SubjectKey(IPAddress(v4: UInt32(truncatingIfNeeded: number)), policy: policy)
        let decision = machine.ask(subject, asker, token: 0, at: now)
        if decision != .decided(.admit(remaining: nil)) { Issue.record("\(decision)") }
    }

    @Test("a full list drops what has left its window before it drops what has not")
    func full() {
        var machine = machine()
        charge(&machine, 1, policy: 1, at: begin)
        for number in 1..<WindowMachine.entriesMax { charge(&machine, number, policy: 0, at: begin) }
        #expect(machine.entries.count == WindowMachine.entriesMax)
        for number in 0..<10 { charge(&machine, number, policy: 0, at: begin + .seconds(2)) }
        #expect(machine.entries.count == 11)
        #expect(machine.entries.first?.subject.policy == 1)
        #expect(machine.entriesDropped == 0)
        // Where all of it is worth something, the oldest goes.
        for number in 0..<WindowMachine.entriesMax { charge(&machine, number, policy: 1, at: begin + .seconds(3)) }
        #expect(machine.entries.count == WindowMachine.entriesMax)
        #expect(machine.entriesDropped == 1)
    }

    @Test("a machine owes what it has not put right, and what it let in, as long as those are in their window")
    func owes() throws {
        var lost = machine()
        var owing = [lost.isOwing(at: begin)]
        charge(&lost, 1, policy: 0, at: begin)
        owing.append(lost.isOwing(at: begin + .milliseconds(999)))
        owing.append(lost.isOwing(at: begin + .seconds(1)))
        charge(&lost, 1, policy: 1, at: begin)
        owing.append(lost.isOwing(at: begin + .seconds(3_599)))
        #expect(owing == [false, true, false, true])
        let bench = try MachineBench()
        try bench.connect()
        bench.ask()
        try bench.pump()
        #expect(bench.admitted == 1)
        owing = [bench.machine.isOwing(at: bench.now)]
        bench.ahead = .seconds(1)
        owing.append(bench.machine.isOwing(at: bench.now))
        #expect(owing == [true, false])
    }
}
