import Health
import Membership
import Primitives
import Testing

private let users = Watched.users
private let first = Watched.first
private let second = Watched.second

@Suite struct VotingTests {
    @Test("news of a verdict makes a node probe at once; the backend is down when the quorum is reached, not before")
    func quorum() {
        var rig = MachineRig()
        rig.join(live: ["x", "y"])
        rig.pass(.seconds(5))
        rig.hear("x", first, verdict(.down))
        #expect(rig.pending.map(\.key) == [first])
        #expect(rig.switches.isEmpty)
        rig.settle(firstIsDead)
        #expect(rig.switches == ["http://a:1 off"])
        #expect(rig.published.map(\.verdict.evidence) == ["a failed confirming probe: connection refused"])
        #expect(rig.machine.condition(of: first) == .downForAll(down: 2, live: 3))
    }

    @Test("a node whose own probe succeeds keeps the backend, until a quorum of others decides")
    func minority() {
        var rig = MachineRig()
        rig.join(live: ["x", "y", "z"])
        rig.pass(.seconds(5))
        rig.hear("x", first, verdict(.down))
        rig.settle { _ in .succeeded }
        rig.hear("y", first, verdict(.down))
        #expect(rig.isAvailable(first))
        rig.hear("z", first, verdict(.down, kind: .traffic))
        #expect(!rig.isAvailable(first))
        #expect(rig.published.isEmpty)
        rig.hear("y", first, verdict(.up, sequence: 2))
        #expect(rig.isAvailable(first))
    }

    @Test("a node that alone cannot reach a backend avoids it, says so, and the others keep it")
    func avoided() {
        var rig = MachineRig()
        rig.join(live: ["x", "y"])
        rig.pass(.seconds(100), firstIsDead)
        #expect(!rig.isAvailable(first))
        let status = rig.machine.listing[0]
        #expect(status.state == .up)
        #expect(!status.isAvailable)
        #expect(
            status.reason
                == "avoided by this node alone (1 of 3 nodes judge it down); 3 failed probes: connection refused")
        #expect(status.votes.map { "\($0.node) \($0.vote)" } == ["me down", "x up", "y up"])
    }

    @Test("while Redis is out of reach, what a node finds down is down, until it finds it up or can ask the others")
    func alone() {
        var rig = MachineRig()
        rig.join(live: ["x", "y"])
        rig.pass(.seconds(5))
        rig.give { $0.redisLost(at: $1, into: &$2) }
        rig.pass(.seconds(100), firstIsDead)
        #expect(!rig.isAvailable(first))
        let status = rig.machine.listing[0]
        #expect(status.state == .down)
        #expect(status.reason.hasPrefix("down by this node alone, since Redis is out of reach (1 of 3 "))
        #expect(rig.machine.listing[1].state == .up)
        rig.pass(.seconds(100))
        #expect(rig.isAvailable(first))
        #expect(rig.machine.listing[0].state == .up)
        rig.pass(.seconds(100), firstIsDead)
        #expect(rig.machine.listing[0].state == .down)
        rig.join(live: ["x", "y"])
        #expect(!rig.isAvailable(first))
        #expect(rig.machine.listing[0].state == .up)
        #expect(rig.machine.listing[0].reason.hasPrefix("avoided by this node alone (1 of 3 "))
    }

    @Test("a node that has lost Redis when it avoided a backend alone calls it down")
    func becomesAlone() {
        var rig = MachineRig()
        rig.join(live: ["x", "y"])
        rig.pass(.seconds(100), firstIsDead)
        #expect(rig.machine.listing[0].state == .up)
        rig.give { $0.redisLost(at: $1, into: &$2) }
        #expect(rig.machine.listing[0].state == .down)
    }

    @Test("repeated, late and foreign news change nothing")
    func harmless() {
        var rig = MachineRig()
        rig.join(live: ["x"])
        rig.pass(.seconds(5))
        rig.hear("x", first, verdict(.down, sequence: 5))
        rig.settle(firstIsDead)
        let before = rig.machine.listing
        rig.actions = []
        for _ in 0..<3 {
            rig.hear("x", first, verdict(.down, sequence: 5))
            rig.hear("x", first, verdict(.up, sequence: 4))
            rig.hear("me", first, verdict(.up, sequence: 99))
            rig.hear("x", BackendKey(service: users, url: "http://other:1"), verdict(.down))
            rig.hear("x", BackendKey(service: "other", url: first.url), verdict(.down))
        }
        #expect(rig.actions.isEmpty)
        #expect(rig.machine.listing == before)
    }

    @Test("a vote counts while its author is alive")
    func votersLeave() {
        var rig = MachineRig()
        rig.join(live: ["x", "y", "z"])
        rig.hear("x", first, verdict(.down))
        rig.hear("y", first, verdict(.down))
        #expect(rig.isAvailable(first))
        rig.give { $0.liveNodesChanged(["me", "x", "y"].map(node), at: $1, into: &$2) }
        #expect(!rig.isAvailable(first))
        rig.give { $0.liveNodesChanged(["me", "x", "z"].map(node), at: $1, into: &$2) }
        #expect(rig.isAvailable(first))
    }

    @Test("what a node said goes with it, and the hashes are read when one comes")
    func comingAndGoing() {
        var rig = MachineRig()
        rig.join(live: ["x"])
        rig.hear("x", first, verdict(.down))
        rig.settle(firstIsDead)
        #expect(rig.machine.condition(of: first) == .downForAll(down: 2, live: 2))
        rig.give { $0.liveNodesChanged([node("me")], at: $1, into: &$2) }
        rig.actions = []
        rig.give { $0.liveNodesChanged(["me", "x"].map(node), at: $1, into: &$2) }
        #expect(rig.actions.contains(.readSnapshot(service: users)))
        #expect(rig.machine.condition(of: first) == .avoidedHere(down: 1, live: 2))
        rig.give { $0.snapshot(service: users, [field(first, "x", verdict(.down))], at: $1, into: &$2) }
        #expect(rig.machine.condition(of: first) == .downForAll(down: 2, live: 2))
    }

    @Test("without Redis a node goes on with the last view and its own evidence, until the others' words are too old")
    func lost() {
        var rig = MachineRig()
        rig.join(live: ["x", "y"])
        rig.hear("x", first, verdict(.down))
        rig.hear("y", first, verdict(.down))
        rig.settle { _ in .succeeded }
        rig.give { $0.redisLost(at: $1, into: &$2) }
        #expect(rig.switches == ["http://a:1 off"])
        rig.pass(.seconds(50))
        #expect(!rig.isAvailable(first))
        rig.hear("x", first, verdict(.down, sequence: 8))
        rig.pass(.seconds(15))
        #expect(rig.isAvailable(first))
        rig.pass(.seconds(60)) { $0 == second ? .failed(refused) : .succeeded }
        #expect(!rig.isAvailable(second))
        rig.join(
            live: ["x", "y"],
            fields: [field(first, "x", verdict(.down, sequence: 9)), field(first, "y", verdict(.down, sequence: 9))])
        #expect(!rig.isAvailable(first))
    }

    @Test("a verdict that its author does not renew expires, one that is renewed stands; repeating it is no renewal")
    func expiry() {
        var rig = MachineRig()
        rig.join(live: ["x", "y"])
        rig.hear("x", first, verdict(.down))
        rig.hear("y", first, verdict(.down))
        rig.settle { _ in .succeeded }
        for sequence: UInt64 in 2...10 {
            rig.pass(.seconds(20))
            rig.hear("x", first, verdict(.down, sequence: sequence))
            rig.hear("y", first, verdict(.down, sequence: sequence))
        }
        #expect(rig.switches == ["http://a:1 off"])
        for _ in 0..<7 {
            rig.pass(.seconds(10))
            rig.hear("x", first, verdict(.down, sequence: 10))
            rig.give {
                $0.snapshot(service: users, [field(first, "y", verdict(.down, sequence: 10))], at: $1, into: &$2)
            }
        }
        #expect(rig.switches == ["http://a:1 off", "http://a:1 on"])
        #expect(rig.machine.listing[0].votes.allSatisfy { $0.vote == .up })
    }

    @Test("a node writes its verdict against a backend again every 20 s, with a new number and the old date")
    func renewal() {
        var rig = MachineRig()
        rig.join()
        rig.pass(.seconds(100), firstIsDead)
        let verdicts = rig.published.map(\.verdict)
        #expect(verdicts.count >= 3)
        #expect(verdicts.map(\.sequence) == (1...UInt64(verdicts.count)).map { $0 })
        #expect(Set(verdicts.map(\.since)).count == 1)
        #expect(verdicts.allSatisfy { $0.state == .down })
    }

    @Test("since tells when the quorum was reached, by the voters' clocks, on every node alike")
    func since() {
        var rig = MachineRig()
        rig.join(live: ["x", "y"])
        rig.pass(.seconds(50))
        rig.hear("x", first, verdict(.down, since: 1_000))
        rig.hear("y", first, verdict(.down, since: 3_000))
        #expect(rig.machine.listing[0].state == .down)
        #expect(rig.machine.listing[0].since == UnixTime(milliseconds: 3_000))
        #expect(rig.machine.listing[1].since == moment(.zero).wall)
    }

    @Test("nonsense in Redis is ignored, counted, and reported at most every ten seconds")
    func nonsense() {
        var rig = MachineRig()
        let bad: [(field: String, value: [UInt8])] = [
            ("no bar", [1]), ("http://a:1|x", [0xff]), ("http://a:1|x|y z", []), ("http://a:1|me", Array("{}".utf8)),
        ]
        rig.join(live: ["x"], fields: bad)
        rig.give { $0.snapshot(service: users, bad, at: $1, into: &$2) }
        let logs = rig.actions.filter { if case .log = $0 { true } else { false } }
        #expect(logs == [.log(.ignored(count: 1, last: .badField))])
        rig.pass(.seconds(11))
        rig.give { $0.ignored(.malformed, at: $1, into: &$2) }
        #expect(rig.actions.last == .log(.ignored(count: 8, last: .malformed)))
        #expect(rig.isAvailable(first))
    }

    @Test("fields of nodes that have been gone for an hour are removed, those of the living never")
    func pruned() {
        var rig = MachineRig()
        let fields = [field(first, "x", verdict(.down)), field(second, "dead", verdict(.down))]
        rig.join(live: ["x"], fields: fields)
        for _ in 0..<70 {
            rig.pass(.seconds(60))
            #expect(rig.removed.isEmpty || rig.time >= .seconds(3_600))
            rig.give { $0.snapshot(service: users, fields, at: $1, into: &$2) }
        }
        #expect(Set(rig.removed) == ["http://b:1|dead"])
    }

    @Test("where the hash cannot be read, what is told on the channel decides, and what this node means is told")
    func unreadable() {
        var rig = MachineRig()
        rig.give { $0.redisRestored(at: $1, into: &$2) }
        rig.give { $0.liveNodesChanged(["x", "y"].map(node), at: $1, into: &$2) }
        rig.pass(.milliseconds(600))
        rig.fail(first)
        #expect(rig.published.isEmpty)
        rig.give { $0.snapshotRefused(service: users, at: $1, into: &$2) }
        #expect(rig.published.map(\.backend) == [first])
        rig.hear("x", second, verdict(.down))
        rig.hear("y", second, verdict(.down))
        #expect(!rig.isAvailable(second))
        // Once read, it stays so when a later reading is refused.
        let before = rig.published.count
        rig.give { $0.snapshotRefused(service: users, at: $1, into: &$2) }
        rig.give { $0.snapshotRefused(service: "other", at: $1, into: &$2) }
        #expect(rig.published.count == before)
        #expect(!rig.isAvailable(second))
    }
}
