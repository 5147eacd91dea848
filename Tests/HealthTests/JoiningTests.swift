import Health
import Membership
import Primitives
import Testing

private let users = Watched.users
private let first = Watched.first

@Suite struct JoiningTests {
    @Test("on joining, a node reads the hashes first and speaks only then, with everything that it has said before")
    func joining() {
        var rig = MachineRig()
        rig.pass(.seconds(100), firstIsDead)
        rig.actions = []
        rig.give { $0.redisRestored(at: $1, into: &$2) }
        #expect(rig.actions == [.readSnapshot(service: users), .readWords])
        rig.give { $0.snapshot(service: users, [], at: $1, into: &$2) }
        #expect(rig.published.map(\.verdict.state) == [.down])
        #expect(rig.published.map(\.backend) == [first])
    }

    @Test("a node that hears nothing reads the hashes as often as it is told to, once it has joined")
    func readingWithoutNews() {
        var rig = MachineRig()
        rig.give { $0.reread(at: $1, into: &$2) }
        #expect(rig.actions == [])
        rig.join()
        for _ in 0..<2 {
            rig.actions = []
            rig.give { $0.reread(at: $1, into: &$2) }
            #expect(rig.actions == [.readSnapshot(service: users), .readWords])
            rig.give { $0.snapshot(service: users, [], at: $1, into: &$2) }
        }
    }

    @Test("what is found out while the hash is being read is told once it has been read")
    func joiningMeanwhile() {
        var rig = MachineRig()
        rig.pass(.seconds(1))
        rig.give { $0.redisRestored(at: $1, into: &$2) }
        rig.fail(first)
        #expect(rig.switches == ["http://a:1 off"])
        #expect(rig.published.isEmpty)
        rig.give { $0.snapshot(service: users, [], at: $1, into: &$2) }
        #expect(rig.published.map(\.verdict.kind) == [.traffic])
        rig.settle(firstIsDead)
        #expect(rig.published.map(\.verdict.kind) == [.traffic, .probe])
    }

    @Test("a recovery that happened while Redis was away is told when it is back")
    func recoveryTold() {
        var rig = MachineRig()
        rig.join()
        rig.pass(.seconds(100), firstIsDead)
        let said = rig.published
        #expect(Set(said.map(\.verdict.state)) == [.down])
        rig.give { $0.redisLost(at: $1, into: &$2) }
        rig.pass(.seconds(60))
        rig.actions = []
        rig.join(fields: [field(first, "me", said[said.count - 1].verdict)])
        #expect(rig.published.map(\.verdict.state) == [.up])
        #expect(rig.published[0].verdict.sequence > said[said.count - 1].verdict.sequence)
    }

    @Test("a joining node acts on what the others have agreed before it has probed anything")
    func joiningKnows() {
        var rig = MachineRig()
        rig.join(live: ["x", "y"], fields: [field(first, "x", verdict(.down)), field(first, "y", verdict(.down))])
        #expect(rig.switches == ["http://a:1 off"])
        #expect(rig.pending.map(\.key) == [first])
    }

    @Test(
        "own fields that say what this run thinks are left alone, others are written again", arguments: [true, false])
    func reread(intact: Bool) {
        var rig = MachineRig()
        rig.join()
        rig.pass(.seconds(100), firstIsDead)
        guard let said = rig.published.last?.verdict else {
            Issue.record("nothing was said")
            return
        }
        rig.actions = []
        rig.give { $0.snapshot(service: users, intact ? [field(first, "me", said)] : [], at: $1, into: &$2) }
        #expect(rig.published.map(\.verdict.sequence) == (intact ? [] : [said.sequence + 1]))
        #expect(rig.published.allSatisfy { $0.verdict.since == said.since })
    }

    @Test("the hashes are read again about every ten seconds, sooner when reading failed, never without Redis")
    func rereading() {
        var rig = MachineRig()
        func reads(_ rig: MachineRig) -> Int { rig.actions.count { $0 == .readSnapshot(service: users) } }
        rig.pass(.seconds(50))
        #expect(reads(rig) == 0)
        rig.join()
        rig.pass(.seconds(100))
        #expect((9...12).contains(reads(rig)))
        rig.actions = []
        rig.give { machine, now, _ in machine.snapshotFailed(at: now) }
        rig.pass(.seconds(1))
        #expect(reads(rig) == 1)
        rig.give { $0.redisLost(at: $1, into: &$2) }
        rig.actions = []
        rig.pass(.seconds(50))
        #expect(reads(rig) == 0)
    }

    // MARK: An earlier run

    @Test("an earlier run's verdict stays in force until this run has probed for itself", arguments: [true, false])
    func inherited(isDead: Bool) {
        var rig = MachineRig(boot: 2)
        rig.join(
            live: ["x"],
            fields: [field(first, "me", verdict(.down, boot: 1, sequence: 9)), field(first, "x", verdict(.down))])
        #expect(rig.switches == ["http://a:1 off"])
        #expect(rig.published.isEmpty)
        rig.settle { key in key == first && isDead ? .failed(refused) : .succeeded }
        #expect(rig.published.map(\.verdict.state) == [isDead ? .down : .up])
        #expect(rig.published[0].verdict.boot == BootID(2))
        #expect(rig.isAvailable(first) != isDead)
    }

    @Test("an earlier run's fields that say up, or that no probe could answer, are removed")
    func inheritedNeedless() {
        var rig = MachineRig(boot: 2)
        rig.join(fields: [field(first, "me", verdict(.up, boot: 1))])
        #expect(rig.removed == ["http://a:1|me"])
        var passive = MachineRig(boot: 2) { $0.active = false }
        passive.join(fields: [field(first, "me", verdict(.down, boot: 1))])
        #expect(passive.removed == ["http://a:1|me"])
        #expect(passive.switches.isEmpty)
    }

    @Test("own fields of backends that are no longer configured are removed, those of other nodes are left")
    func unknownBackends() {
        var rig = MachineRig()
        let gone = BackendKey(service: users, url: "http://gone:1")
        rig.join(live: ["x"], fields: [field(gone, "me", verdict(.down)), field(gone, "x", verdict(.down))])
        #expect(rig.removed == ["http://gone:1|me"])
    }
}
