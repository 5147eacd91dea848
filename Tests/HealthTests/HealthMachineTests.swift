import Health
import Membership
import Primitives
import Testing

private let users = "users"
private let first = BackendKey(service: users, url: "http://a:1")
private let second = BackendKey(service: users, url: "http://b:1")

/// One node's machine in the hands of a test, which plays Redis, the prober and the traffic.
private struct Rig {
    var machine: HealthMachine
    var time = TimeSpan.zero
    var actions: [HealthAction] = []
    /// Probes that were asked for and not answered.
    var pending: [(key: BackendKey, attempt: UInt64)] = []

    var now: HealthMoment { moment(time) }

    init(
        _ name: String = "me", boot: UInt64 = 1, urls: [String] = [first.url, second.url],
        _ adjust: (inout HealthSettings) -> Void = { _ in }
    ) {
        var settings = HealthSettings()
        adjust(&settings)
        machine = HealthMachine(
            node: node(name), boot: BootID(boot),
            services: [WatchedService(name: users, settings: settings, urls: urls)], seed: 5, now: moment(.zero))
    }

    /// Lets the machine take an input, and notes the probes that it asks for.
    mutating func give(_ input: (inout HealthMachine, HealthMoment, inout [HealthAction]) -> Void) {
        var new: [HealthAction] = []
        input(&machine, now, &new)
        for case .probe(let key, let attempt, _) in new { pending.append((key, attempt)) }
        actions += new
    }

    /// Does what becomes due up to now plus `span`, answering all probes by `answer`.
    mutating func pass(_ span: TimeSpan, _ answer: (BackendKey) -> ProbeResult = { _ in .succeeded }) {
        let end = time + span
        while true {
            let due = max(machine.nextDeadline - moment(.zero).monotonic, time)
            if due > end { break }
            time = due
            give { $0.tick(at: $1, into: &$2) }
            settle(answer)
        }
        time = end
    }

    mutating func settle(_ answer: (BackendKey) -> ProbeResult) {
        while let probe = pending.popLast() {
            give { $0.probeFinished(probe.key, attempt: probe.attempt, answer(probe.key), at: $1, into: &$2) }
        }
    }

    mutating func join(live: [String] = [], fields: [(field: String, value: [UInt8])] = []) {
        give { $0.redisRestored(at: $1, into: &$2) }
        give { $0.liveNodesChanged(live.map(node), at: $1, into: &$2) }
        give { $0.snapshot(service: users, fields, at: $1, into: &$2) }
    }

    mutating func hear(_ author: String, _ key: BackendKey, _ verdict: HealthVerdict) {
        give { $0.news(HealthNews(backend: key, node: node(author), verdict: verdict), at: $1, into: &$2) }
    }

    mutating func fail(_ key: BackendKey, _ times: Int = 3) {
        for _ in 0..<times { give { $0.trafficFailed(key, .status(502), at: $1, into: &$2) } }
    }

    func isAvailable(_ key: BackendKey) -> Bool { machine.condition(of: key)?.isAvailable ?? false }

    /// Availability changes since the start, in order.
    var switches: [String] {
        actions.compactMap { action in
            if case .availabilityChanged(let key, let available, _) = action {
                return "\(key.url) \(available ? "on" : "off")"
            }
            return nil
        }
    }

    var published: [HealthNews] {
        actions.compactMap { action in
            if case .publish(let news) = action { return news }
            return nil
        }
    }

    var reports: [ProbeReport] {
        actions.compactMap { action in
            if case .report(let report) = action { return report }
            return nil
        }
    }

    var removed: [String] {
        actions.flatMap { action in
            if case .remove(_, let fields) = action { return fields }
            return []
        }
    }
}

private func field(_ key: BackendKey, _ author: String, _ verdict: HealthVerdict) -> (field: String, value: [UInt8]) {
    (HealthKeys.field(url: key.url, node: node(author)), Array(verdict.json.utf8))
}

private func firstIsDead(_ key: BackendKey) -> ProbeResult { key == first ? .failed(refused) : .succeeded }

@Suite struct HealthMachineTests {
    // MARK: Alone

    @Test("alone, a node's own verdict decides and nothing is published")
    func alone() {
        var rig = Rig()
        rig.pass(.seconds(100), firstIsDead)
        #expect(rig.switches == ["http://a:1 off"])
        rig.pass(.seconds(30))
        #expect(rig.switches == ["http://a:1 off", "http://a:1 on"])
        #expect(rig.published.isEmpty)
        #expect(rig.machine.listing.map(\.votes.count) == [1, 1])
    }

    @Test("failed requests take a backend out at once, and another probe follows at once")
    func traffic() {
        var rig = Rig()
        rig.pass(.seconds(1))
        rig.fail(first)
        #expect(rig.switches == ["http://a:1 off"])
        #expect(rig.pending.map(\.key) == [first])
    }

    @Test("the last backend stays in use against failed requests, and goes when its probe fails too")
    func last() {
        var rig = Rig(urls: [first.url])
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
        var rig = Rig()
        rig.pass(.seconds(1))
        rig.fail(first)
        rig.fail(second)
        #expect(rig.switches == ["http://a:1 off", "http://a:1 on"])
        #expect(rig.isAvailable(second))
    }

    @Test("recovered traffic ends a streak")
    func recovered() {
        var rig = Rig()
        for _ in 0..<10 {
            rig.fail(first, 2)
            rig.machine.trafficRecovered(first)
        }
        #expect(rig.switches.isEmpty)
    }

    // MARK: Joining

    @Test("on joining, a node reads the hashes first and speaks only then, with everything that it has said before")
    func joining() {
        var rig = Rig()
        rig.pass(.seconds(100), firstIsDead)
        rig.actions = []
        rig.give { $0.redisRestored(at: $1, into: &$2) }
        #expect(rig.actions == [.readSnapshot(service: users), .readWords])
        rig.give { $0.snapshot(service: users, [], at: $1, into: &$2) }
        #expect(rig.published.map(\.verdict.state) == [.down])
        #expect(rig.published.map(\.backend) == [first])
    }

    @Test("what is found out while the hash is being read is told once it has been read")
    func joiningMeanwhile() {
        var rig = Rig()
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
        var rig = Rig()
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
        var rig = Rig()
        rig.join(live: ["x", "y"], fields: [field(first, "x", verdict(.down)), field(first, "y", verdict(.down))])
        #expect(rig.switches == ["http://a:1 off"])
        #expect(rig.pending.map(\.key) == [first])
    }

    @Test(
        "own fields that say what this run thinks are left alone, others are written again", arguments: [true, false])
    func reread(intact: Bool) {
        var rig = Rig()
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
        var rig = Rig()
        func reads(_ rig: Rig) -> Int { rig.actions.count { $0 == .readSnapshot(service: users) } }
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
        var rig = Rig(boot: 2)
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
        var rig = Rig(boot: 2)
        rig.join(fields: [field(first, "me", verdict(.up, boot: 1))])
        #expect(rig.removed == ["http://a:1|me"])
        var passive = Rig(boot: 2) { $0.active = false }
        passive.join(fields: [field(first, "me", verdict(.down, boot: 1))])
        #expect(passive.removed == ["http://a:1|me"])
        #expect(passive.switches.isEmpty)
    }

    @Test("own fields of backends that are no longer configured are removed, those of other nodes are left")
    func unknownBackends() {
        var rig = Rig()
        let gone = BackendKey(service: users, url: "http://gone:1")
        rig.join(live: ["x"], fields: [field(gone, "me", verdict(.down)), field(gone, "x", verdict(.down))])
        #expect(rig.removed == ["http://gone:1|me"])
    }

    // MARK: The others

    @Test("news of a verdict makes a node probe at once; the backend is down when the quorum is reached, not before")
    func quorum() {
        var rig = Rig()
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
        var rig = Rig()
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
        var rig = Rig()
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

    @Test("repeated, late and foreign news change nothing")
    func harmless() {
        var rig = Rig()
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
        var rig = Rig()
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
        var rig = Rig()
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
        var rig = Rig()
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
        var rig = Rig()
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
        var rig = Rig()
        rig.join()
        rig.pass(.seconds(100), firstIsDead)
        let verdicts = rig.published.map(\.verdict)
        #expect(verdicts.count >= 3)
        #expect(verdicts.map(\.sequence) == (1...UInt64(verdicts.count)).map { $0 })
        #expect(Set(verdicts.map(\.since)).count == 1)
        #expect(verdicts.allSatisfy { $0.state == .down })
    }

    @Test("verdicts and reports of another check say nothing of this one")
    func otherCheck() {
        var rig = Rig()
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
        var rigs = ["me", "x", "y"].map { Rig($0, boot: 7) }
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
        var rig = Rig()
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

    @Test("since tells when the quorum was reached, by the voters' clocks, on every node alike")
    func since() {
        var rig = Rig()
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
        var rig = Rig()
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
        var rig = Rig()
        let fields = [field(first, "x", verdict(.down)), field(second, "dead", verdict(.down))]
        rig.join(live: ["x"], fields: fields)
        for _ in 0..<70 {
            rig.pass(.seconds(60))
            #expect(rig.removed.isEmpty || rig.time >= .seconds(3_600))
            rig.give { $0.snapshot(service: users, fields, at: $1, into: &$2) }
        }
        #expect(Set(rig.removed) == ["http://b:1|dead"])
    }

    // MARK: Configuration and the end

    @Test("a reload keeps what is known of backends that stay, and takes back what was said of those that go")
    func reload() {
        var rig = Rig()
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
        var rig = Rig()
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
        var rig = Rig()
        rig.join()
        rig.pass(.seconds(100), firstIsDead)
        rig.actions = []
        rig.give { machine, _, actions in machine.leave(into: &actions) }
        rig.give { machine, _, actions in machine.leave(into: &actions) }
        rig.pass(.seconds(100))
        #expect(rig.removed == ["http://a:1|me"])
        #expect(rig.published.isEmpty)
    }

    @Test("a node never has two probes of one backend under way")
    func oneProbe() {
        var rig = Rig()
        rig.join(live: ["x", "y"])
        for step in 0..<200 {
            rig.time = rig.time + .milliseconds(20)
            rig.give { $0.tick(at: $1, into: &$2) }
            rig.hear("x", first, verdict(step % 2 == 0 ? .down : .up, sequence: UInt64(step + 1)))
            rig.fail(first, 1)
            #expect(rig.pending.count { $0.key == first } <= 1)
        }
    }
}
