import Health
import Membership
import Primitives
import Testing

private let users = Watched.users
private let first = Watched.first
private let second = Watched.second

@Suite struct ProbeTurnTests {
    @Test("verdicts and reports of another check say nothing of this one")
    func otherCheck() {
        var rig = MachineRig()
        rig.join(live: ["x", "y"])
        rig.pass(.seconds(5))
        for author in ["x", "y"] {
            var other = verdict(.down)
            other.check = 77
            rig.hear(author, first, other)
        }
        #expect(rig.switches.isEmpty)
        #expect(rig.pending.isEmpty)
        #expect(rig.machine.listing[0].votes.allSatisfy { $0.vote == .up })
        var settings = HealthSettings()
        settings.probe = .tcp
        rig.give {
            $0.reconfigure([WatchedService(name: users, settings: settings, urls: [first.url])], at: $1, into: &$2)
        }
        rig.fail(first)
        #expect(rig.published.last?.verdict.check != HealthSettings().check)
    }

    @Test("who has the turn probes; the others wait for the report, and take over in the order of rank without it")
    func turns() {
        var rigs = ["me", "x", "y"].map { MachineRig($0, boot: 7) }
        for i in rigs.indices { rigs[i].join(live: ["me", "x", "y"].filter { $0 != ["me", "x", "y"][i] }) }
        for i in rigs.indices { rigs[i].pass(.milliseconds(500)) }
        // At the start each has probed at most once, and only one of them has the next turn.
        let started = rigs.map { $0.reports.count { $0.backend == first } }
        #expect(started.reduce(0, +) >= 1)
        let alone = rigs.map { rig -> TimeSpan in
            var rig = rig
            let before = rig.reports.count { $0.backend == first }
            while rig.reports.count(where: { $0.backend == first }) == before { rig.pass(.milliseconds(100)) }
            return rig.time
        }.sorted()
        // Each takes over a probe's time and a second after the one before.
        #expect(alone[1] - alone[0] > .seconds(2))
        #expect(alone[2] - alone[1] > .seconds(2))
    }

    @Test("failures count over the cluster: the last of them in turn makes this node vote")
    func streakOfTheCluster() {
        var rig = MachineRig()
        rig.join(live: ["x", "y"])
        rig.pass(.seconds(1))
        let number = rig.reports.last { $0.backend == first }?.record.number ?? 0
        for (step, bad) in [1, 2].enumerated() {
            let report = ProbeReport(
                backend: first, node: node("x"), check: HealthSettings().check,
                record: ProbeRecord(number: number + 1 + UInt64(step), good: 0, bad: bad))
            rig.give { $0.heard(report, at: $1, into: &$2) }
            rig.give { $0.heard(report, at: $1, into: &$2) }
        }
        #expect(rig.switches.isEmpty)
        rig.pass(.seconds(30), firstIsDead)
        #expect(rig.published.first?.verdict.evidence == "3 failed probes: connection refused")
        #expect(rig.reports.contains { $0.record.bad == 3 })
    }

    @Test("a node never has two probes of one backend under way")
    func oneProbe() {
        var rig = MachineRig()
        rig.join(live: ["x", "y"])
        for step in 0..<200 {
            rig.time = rig.time + .milliseconds(20)
            rig.give { $0.tick(at: $1, into: &$2) }
            rig.hear("x", first, verdict(step % 2 == 0 ? .down : .up, sequence: UInt64(step + 1)))
            rig.fail(first, 1)
            #expect(rig.pending.count { $0.key == first } <= 1)
        }
    }

    @Test("a forged number that leaves none behind it does not stop the streaks")
    func numbersUsedUp() {
        var rig = MachineRig()
        rig.join(live: ["x", "y"])
        rig.pass(.seconds(1))
        func hear(_ good: Int, _ bad: Int) {
            let report = ProbeReport(
                backend: first, node: node("x"), check: HealthSettings().check,
                record: ProbeRecord(number: ProbeRecord.numberMax, good: good, bad: bad))
            rig.give { $0.heard(report, at: $1, into: &$2) }
        }
        hear(0, ProbeRecord.streakMax)
        // Whoever comes next is believed, although a failure stands above a success of the same number.
        hear(1, 0)
        rig.pass(.seconds(60)) { _ in .succeeded }
        #expect(rig.isAvailable(first))
        let forged = ProbeRecord(number: ProbeRecord.numberMax, good: 0, bad: ProbeRecord.streakMax)
        #expect(forged.advanced(by: .succeeded).supersedes(forged))
        #expect(forged.advanced(by: .succeeded).advanced(by: .failed(refused)).bad == 1)
        #expect(!forged.supersedes(forged))
    }
}
