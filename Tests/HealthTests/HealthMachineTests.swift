import Health
import Membership
import Primitives
import Testing

private let users = Watched.users
private let first = Watched.first
private let second = Watched.second

@Suite struct HealthMachineTests {
    // MARK: Alone

    @Test("alone, a node's own verdict decides and nothing is published")
    func alone() {
        var rig = MachineRig()
        rig.pass(.seconds(100), firstIsDead)
        #expect(rig.switches == ["http://a:1 off"])
        rig.pass(.seconds(30))
        #expect(rig.switches == ["http://a:1 off", "http://a:1 on"])
        #expect(rig.published.isEmpty)
        #expect(rig.machine.listing.map(\.votes.count) == [1, 1])
    }

    @Test("failed requests take a backend out at once, and another probe follows at once")
    func traffic() {
        var rig = MachineRig()
        rig.pass(.seconds(1))
        rig.fail(first)
        #expect(rig.switches == ["http://a:1 off"])
        #expect(rig.pending.map(\.key) == [first])
    }

    @Test("the last backend stays in use against failed requests, and goes when its probe fails too")
    func last() {
        var rig = MachineRig(urls: [first.url])
        rig.pass(.seconds(1))
        rig.fail(first)
        #expect(rig.switches.isEmpty)
        #expect(rig.machine.condition(of: first) == .keptAsLast(down: 1, live: 1))
        #expect(rig.machine.listing.first?.state == .up)
        rig.settle { _ in .failed(refused) }
        #expect(rig.switches == ["http://a:1 off"])
        #expect(rig.machine.listing.first?.state == .down)
    }

    @Test("when the last healthy backend starts to fail requests, all that only traffic spoke against are used again")
    func lastTwo() {
        var rig = MachineRig()
        rig.pass(.seconds(1))
        rig.fail(first)
        rig.fail(second)
        #expect(rig.switches == ["http://a:1 off", "http://a:1 on"])
        #expect(rig.isAvailable(second))
    }

    @Test("recovered traffic ends a streak")
    func recovered() {
        var rig = MachineRig()
        for _ in 0..<10 {
            rig.fail(first, 2)
            rig.machine.trafficRecovered(first)
        }
        #expect(rig.switches.isEmpty)
    }

    // MARK: Configuration and the end

    @Test("a reload keeps what is known of backends that stay, and takes back what was said of those that go")
    func reload() {
        var rig = MachineRig()
        rig.join()
        rig.pass(.seconds(100), firstIsDead)
        rig.actions = []
        let third = BackendKey(service: users, url: "http://c:1")
        let settings = HealthSettings()
        rig.give {
            $0.reconfigure(
                [WatchedService(name: users, settings: settings, urls: [first.url, third.url, third.url])], at: $1,
                into: &$2)
        }
        #expect(rig.machine.listing.map(\.backend) == [first, third])
        #expect(!rig.isAvailable(first))
        #expect(rig.isAvailable(third))
        #expect(rig.machine.condition(of: second) == nil)
        #expect(rig.actions.contains(.readSnapshot(service: users)))
        rig.give { $0.redisLost(at: $1, into: &$2) }
        rig.give {
            $0.reconfigure([WatchedService(name: users, settings: settings, urls: [third.url])], at: $1, into: &$2)
        }
        #expect(rig.removed.isEmpty)
        rig.give { $0.redisRestored(at: $1, into: &$2) }
        #expect(rig.removed == ["http://a:1|me"])
    }

    @Test("a probe of a backend that a reload has removed ends in nothing")
    func reloadUnderProbe() {
        var rig = MachineRig()
        rig.time = .milliseconds(500)
        rig.give { $0.tick(at: $1, into: &$2) }
        #expect(rig.pending.count == 2)
        rig.give { $0.reconfigure([], at: $1, into: &$2) }
        rig.settle { _ in .failed(.timeout) }
        #expect(rig.machine.listing.isEmpty)
        #expect(rig.machine.nextDeadline == .distantFuture)
    }

    @Test("a node that leaves takes its verdicts along and says nothing more")
    func leaving() {
        var rig = MachineRig()
        rig.join()
        rig.pass(.seconds(100), firstIsDead)
        rig.actions = []
        rig.give { machine, _, actions in machine.leave(into: &actions) }
        rig.give { machine, _, actions in machine.leave(into: &actions) }
        rig.pass(.seconds(100))
        #expect(rig.removed == ["http://a:1|me"])
        #expect(rig.published.isEmpty)
    }
}
