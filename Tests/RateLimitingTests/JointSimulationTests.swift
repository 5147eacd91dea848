// Many nodes over one real Redis, from one printed seed, where several policies decide each request together: requests of
// different costs, windows in buckets, transactions that are executed late, nodes that are killed.
//
// What is checked is what was promised: by Redis's own time of execution, no window's length holds admissions that cost
// more than the limit; and what was refused leaves nothing behind.

import Hiredis
import Identity
import LinuxIO
import Primitives
import RedisClient
import TestSupport
import Testing

@testable import RateLimiting

private final class Counter: LimitRequester {
    var answered = 0
    var admittedCost = 0
    /// The first lease of those answered last.
    var leases: [Int32] = []
    func limitDecided(token: UInt64, verdict: Verdict) { Issue.record("asked of several, answered by one") }
    func limitsDecided(token: UInt64, _ report: PolicyReport) {
        answered += 1
        if !report.isRefused { admittedCost += Int(token) }
        if report.lease >= 0 { leases.append(report.lease) }
    }
}

struct JointConditions: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var policies: [Policy]
    var costMax = 1
    var nodes = 3
    var clients = 3
    var requestsPerSecond = 3_000.0
    var duration = TimeSpan.seconds(2)
    var latePerMille = 0
    var lateMax = TimeSpan.zero
    var restartEvery = TimeSpan.max
}

private final class JointSimulation {
    final class Node {
        var machine: WindowMachine
        let life: Int
        let socket: BlockingSocket
        let clockOffset: Int64
        var lastDue = MonotonicTime(nanoseconds: 0)
        var lastReturn = MonotonicTime(nanoseconds: 0)
        /// When each name was let in, and whose requests run.
        var acquired: [UInt64: RedisTime] = [:]
        var running: Set<Int32> = []
        var isRenewing = false

        init(_ machine: consuming WindowMachine, life: Int, socket: BlockingSocket, clockOffset: Int64) {
            self.machine = machine
            self.life = life
            self.socket = socket
            self.clockOffset = clockOffset
        }
    }

    enum Event {
        case request
        case execute(node: Int, life: Int, Sent)
        case answer(node: Int, life: Int, Sent, received: [UInt8])
        case restart(node: Int)
        case end(node: Int, life: Int, lease: Int32)
        case renew(node: Int, life: Int)
        /// Requests that wait for a window's time are due.
        case due(node: Int)
    }

    /// A request that ran, from its admission to its end, both by Redis's time.
    struct Run {
        var subject: SubjectKey
        var from: RedisTime
        var to: RedisTime
    }
    var runs: [Run] = []
    var renewals = 0

    let conditions: JointConditions
    let server: SimulatedServer
    let ledger = Ledger()
    let counter = Counter()
    /// For what was sent by nodes that were killed.
    let dead: BlockingSocket
    var random: SplitMix64
    var nodes: [Node] = []
    var schedule = Schedule<Event>()
    var asked = 0
    /// Transactions that held several windows.
    private(set) var shared = 0

    init(_ conditions: JointConditions, seed: UInt64) throws {
        self.conditions = conditions
        random = SplitMix64(seed: seed)
        let server = try SimulatedServer()
        self.server = server
        dead = try server.socket()
        for _ in 0..<conditions.nodes { nodes.append(try makeNode(life: 0)) }
    }

    private func makeNode(life: Int) throws -> Node {
        let context = LimiterContext(
            policies: conditions.policies, services: [], lossRule: .closed, timeout: .seconds(60),
            boot: random.next(), seed: random.next(), decisions: ledger)
        let node = Node(
            WindowMachine(context, worker: 0), life: life, socket: try server.socket(),
            clockOffset: Int64.random(in: -1_000_000_000_000...1_000_000_000_000, using: &random))
        let now = now(of: node)
        let away = Int64.random(in: 0...400_000, using: &random)
        node.machine.connected(ServerTimeSample(sentAt: now - .nanoseconds(away), receivedAt: now, time: server.time))
        return node
    }

    /// A request ends, or its node is killed.
    private func end(_ lease: Int32, on node: Node, isReleased: Bool) throws {
        guard node.running.remove(lease) != nil else { return }
        let time = server.time
        var ended: [LeaseKeeper.Lease] = []
        node.machine.leases.end(lease) { ended.append($0) }
        for lease in ended {
            if isReleased { node.machine.release(lease, at: now(of: node)) }
            let from = try #require(node.acquired[lease.name])
            runs.append(Run(subject: lease.subject, from: from, to: time))
        }
    }

    /// The most requests of a subject that ran at once.
    func crowd(of runs: [Run]) -> Int {
        var most = 0
        for (_, list) in Dictionary(grouping: runs, by: \.subject) {
            // Of one microsecond, ends come first: TIME is cut off.
            let steps = list.flatMap { [($0.from, 1), ($0.to, -1)] }.sorted { ($0.0, $0.1) < ($1.0, $1.1) }
            var count = 0
            for (_, step) in steps {
                count += step
                most = max(most, count)
            }
        }
        return most
    }

    /// Everyone who still runs ends.
    func endAll() throws {
        for node in nodes {
            for lease in node.running { try end(lease, on: node, isReleased: false) }
        }
    }

    private func now(of node: Node) -> MonotonicTime {
        MonotonicTime(nanoseconds: server.now.nanoseconds + node.clockOffset)
    }

    private func add(_ at: MonotonicTime, _ event: Event) { schedule.add(at, event) }

    func run() throws {
        let begin = server.now
        let end = begin + conditions.duration
        add(begin, .request)
        if conditions.restartEvery < .max { add(begin + conditions.restartEvery, .restart(node: 0)) }
        while let (at, event) = schedule.next() {
            server.advance(to: at)
            switch event {
            case .request: if at < end { try request() }
            case .due(let index): try flush(index)
            case .execute(let index, let life, let sent): try execute(index, life, sent)
            case .answer(let index, let life, let sent, let received): try answer(index, life, sent, received)
            case .restart(let index):
                guard at < end else { continue }
                for lease in nodes[index].running { try self.end(lease, on: nodes[index], isReleased: false) }
                nodes[index] = try makeNode(life: nodes[index].life + 1)
                add(at + conditions.restartEvery, .restart(node: (index + 1) % nodes.count))
            case .end(let index, let life, let lease):
                guard nodes[index].life == life else { continue }
                try self.end(lease, on: nodes[index], isReleased: true)
                try flush(index)
            case .renew(let index, let life):
                guard nodes[index].life == life, at < end + .seconds(1) else { continue }
                while let (place, lease) = nodes[index].machine.leases.takeDue(at: now(of: nodes[index])) {
                    nodes[index].machine.renew(place, lease, at: now(of: nodes[index]))
                    renewals += 1
                }
                try flush(index)
                nodes[index].isRenewing = nodes[index].machine.leases.count > 0
                if nodes[index].isRenewing {
                    add(server.now + .milliseconds(10), .renew(node: index, life: life))
                }
            }
        }
    }

    private func request() throws {
        let now = server.now
        let burst = Int.random(in: 0..<20, using: &random) == 0 ? 12 : 1
        let pause = Double.random(in: 0...2, using: &random) / conditions.requestsPerSecond * Double(burst)
        add(now + .nanoseconds(Int64(pause * 1e9)), .request)
        let index = Int.random(in: nodes.indices, using: &random)
        for _ in 0..<burst {
            asked += 1
            let client = IPAddress(v4: UInt32.random(in: 1...UInt32(conditions.clients), using: &random))
            let cost = UInt16.random(in: 1...UInt16(conditions.costMax), using: &random)
            let subjects = conditions.policies.enumerated().map { number, policy in
                switch policy.key {
                case .global: SubjectKey(globalOf: UInt8(number))
                default: SubjectKey(client, policy: UInt8(number))
                }
            }
            switch nodes[index].machine.ask(
                all: subjects, costs: subjects.map { _ in cost }, counter, token: UInt64(cost),
                at: self.now(of: nodes[index]))
            {
            case .decided(let report): counter.limitsDecided(token: UInt64(cost), report)
            case .pending: break
            }
        }
        try flush(index)
    }

    private func flush(_ index: Int) throws {
        for sent in Sent.all(of: &nodes[index].machine, at: now(of: nodes[index])) {
            if !sent.parts.isEmpty { shared += 1 }
            var delay = TimeSpan.nanoseconds(Int64.random(in: 50_000...400_000, using: &random))
            if Int.random(in: 0..<1_000, using: &random) < conditions.latePerMille {
                delay = delay + .nanoseconds(Int64.random(in: 0...conditions.lateMax.nanoseconds, using: &random))
            }
            let due = max(nodes[index].lastDue, server.now + delay)
            nodes[index].lastDue = due
            add(due, .execute(node: index, life: nodes[index].life, sent))
        }
        if let due = nodes[index].machine.heldUntil {
            add(server.now + max(.zero, due - now(of: nodes[index])), .due(node: index))
        }
    }

    private func execute(_ index: Int, _ life: Int, _ sent: Sent) throws {
        // A killed node's bytes may still be in the server's socket.
        let socket = nodes[index].life == life ? nodes[index].socket : dead
        // Now and then one is long on its way through many windows.
        let slow = Int.random(in: 0..<20, using: &random) == 0
        server.effort = .nanoseconds(Int64.random(in: 0...(slow ? 20_000_000 : 300_000), using: &random))
        let received = try server.execute(sent, on: socket)
        guard nodes[index].life == life else { return }
        let transit = TimeSpan.nanoseconds(Int64.random(in: 50_000...400_000, using: &random))
        let due = max(nodes[index].lastReturn, server.now + transit)
        nodes[index].lastReturn = due
        add(due, .answer(node: index, life: life, sent, received: received))
    }

    private func answer(_ index: Int, _ life: Int, _ sent: Sent, _ received: [UInt8]) throws {
        guard nodes[index].life == life else { return }
        try sent.forEachReply(received) { token, reply in
            switch nodes[index].machine.flights[Int(token)] {
            case .window(let flight):
                // Of a transaction that several share, the later one: so it is told.
                let place = sent.parts.isEmpty ? 2 : reply.count - 2
                let time = RedisTime(
                    microseconds: (reply.integer(place) ?? 0) * 1_000_000 + (reply.integer(place + 1) ?? 0))
                for offset in 0..<UInt64(flight.transaction.count) {
                    nodes[index].acquired[flight.transaction.first + offset] = time
                }
            case .confirmation, .entries, .cleanup, .sweep, .carrying, .probe: break
            }
            nodes[index].machine.replied(token, reply, at: now(of: nodes[index]))
        }
        var answers: [LimitAnswer] = []
        nodes[index].machine.takeAnswers(into: &answers)
        for answer in answers {
            let report = nodes[index].machine.takeReport(answer)
            answer.requester.limitsDecided(token: answer.token, try #require(report))
        }
        for lease in counter.leases {
            nodes[index].running.insert(lease)
            let pause = TimeSpan.milliseconds(Int64.random(in: 0...9, using: &random) == 0 ? 900 : 15)
            add(
                server.now + .nanoseconds(Int64.random(in: 0...pause.nanoseconds, using: &random)),
                .end(node: index, life: life, lease: lease))
            guard !nodes[index].isRenewing else { continue }
            nodes[index].isRenewing = true
            add(server.now, .renew(node: index, life: life))
        }
        counter.leases.removeAll()
        #expect(nodes[index].machine.takeEvents() == [])
        try flush(index)
    }

    /// The most that any window's length holds, by policy.
    func fullest() -> [Int] {
        conditions.policies.enumerated().map { ledger.fullest($1.window, policy: UInt8($0)) }
    }
}

@Suite("A simulated cluster of several policies", .serialized)
struct JointSimulationTests {
    private static func policies(_ forms: [PolicyForm], costMax: Int, window: TimeSpan) -> [Policy] {
        [
            Policy(name: "client", limit: 24, window: window, burst: 1, form: forms[0], costMax: costMax),
            Policy(name: "all", limit: 40, window: window, burst: 1, key: .global, form: forms[1], costMax: costMax),
        ]
    }

    static let conditions: [JointConditions] = [
        JointConditions(
            testDescription: "costs", policies: policies([.window, .window], costMax: 7, window: .milliseconds(300)),
            costMax: 7),
        JointConditions(
            testDescription: "buckets",
            policies: policies([.buckets, .buckets], costMax: 1, window: .milliseconds(300))),
        JointConditions(
            testDescription: "both, costs, often late, restarts",
            policies: policies([.window, .buckets], costMax: 5, window: .milliseconds(250)), costMax: 5,
            latePerMille: 60, lateMax: .milliseconds(40), restartEvery: .milliseconds(90)),
        JointConditions(
            testDescription: "buckets, late by up to three windows",
            policies: policies([.buckets, .window], costMax: 3, window: .milliseconds(100)), costMax: 3,
            duration: .seconds(3), latePerMille: 30, lateMax: .milliseconds(300)),
        JointConditions(
            testDescription: "a large limit in buckets",
            policies: [
                Policy(name: "big", limit: 2_000, window: .milliseconds(400), burst: 1, key: .global, form: .buckets)
            ], requestsPerSecond: 12_000),
    ]

    @Test("no window ever holds more than the limit, by Redis's time and by cost", arguments: conditions)
    func exact(conditions: JointConditions) throws {
        for round in 0..<SimulatedServer.rounds {
            try exact(conditions, seed: SimulatedServer.seed &+ UInt64(round))
        }
    }

    private func exact(_ conditions: JointConditions, seed: UInt64) throws {
        let simulation = try JointSimulation(conditions, seed: seed)
        try simulation.run()
        let fullest = simulation.fullest()
        for (policy, most) in zip(conditions.policies, fullest) {
            #expect(most <= policy.limit, "seed \(seed), \(policy.name): \(most) of \(policy.limit)")
            #expect(most > 0, "seed \(seed)")
        }
        if conditions.policies.count > 1 { #expect(simulation.shared > 0, "seed \(seed)") }
        if conditions.restartEvery == .max {
            #expect(simulation.counter.answered == simulation.asked, "seed \(seed)")
        }
        let size = try conditions.policies.enumerated().map { number, policy in
            guard policy.key == .global else { return 0 }
            return Int(try simulation.server.server.client()("ZCARD", "\(policy.keyPrefix)global")) ?? -1
        }
        print("\(conditions.testDescription): \(simulation.asked) asked, \(fullest) at most, \(size) members")
    }

    static let crowds: [JointConditions] = [
        JointConditions(
            testDescription: "leases",
            policies: [
                Policy(name: "at-once", limit: 3, window: .milliseconds(400), burst: 1, form: .leases),
                Policy(name: "all", limit: 400, window: .milliseconds(500), burst: 1, key: .global),
            ], requestsPerSecond: 2_000, duration: .seconds(3)),
        JointConditions(
            testDescription: "leases of two kinds, often late, killed nodes",
            policies: [
                Policy(name: "at-once", limit: 4, window: .milliseconds(500), burst: 1, form: .leases),
                Policy(name: "all", limit: 7, window: .milliseconds(400), burst: 1, key: .global, form: .leases),
            ], nodes: 4, requestsPerSecond: 1_500, duration: .seconds(3), latePerMille: 60, lateMax: .milliseconds(30),
            restartEvery: .milliseconds(400)),
    ]

    @Test("never more requests run at once than may, and the slots of dead nodes come back", arguments: crowds)
    func leases(conditions: JointConditions) throws {
        let seed = SimulatedServer.seed
        let simulation = try JointSimulation(conditions, seed: seed)
        try simulation.run()
        try simulation.endAll()
        for (number, policy) in conditions.policies.enumerated() where policy.form == .leases {
            let runs = simulation.runs.filter { Int($0.subject.policy) == number }
            let most = simulation.crowd(of: runs)
            #expect(most == policy.limit, "seed \(seed), \(policy.name): \(most) of \(policy.limit)")
            let what = "\(runs.count) runs, \(most) at once, \(simulation.renewals) renewals"
            print("\(conditions.testDescription): \(what)")
        }
        #expect(simulation.renewals > 0)
    }

    @Test("what was refused leaves nothing behind, in entries and in counts", arguments: [PolicyForm.window, .buckets])
    func clean(form: PolicyForm) throws {
        let seed = SimulatedServer.seed
        let policies = Self.policies([form, form], costMax: 6, window: .seconds(60)).map {
            Policy(
                name: $0.name, limit: $0.limit * 5, window: $0.window, burst: 1, key: $0.key, form: form, costMax: 6)
        }
        let simulation = try JointSimulation(
            JointConditions(testDescription: "", policies: policies, costMax: 6, requestsPerSecond: 1_500), seed: seed)
        try simulation.run()
        let redis = try simulation.server.server.client()
        var total = 0
        for client in 1...3 {
            let subject = SubjectKey(IPAddress(v4: UInt32(client)), policy: 0)
            let key = "\(policies[0].keyPrefix)\(subject)"
            #expect(try slots(redis, key, form) == simulation.ledger.total(subject), "seed \(seed)")
            total += simulation.ledger.total(subject)
        }
        let everyone = SubjectKey(globalOf: 1)
        let charged = try slots(redis, "\(policies[1].keyPrefix)global", form)
        #expect(charged == simulation.ledger.total(everyone), "seed \(seed)")
        #expect(simulation.ledger.total(everyone) == total)
        #expect(simulation.counter.admittedCost == total, "seed \(seed)")
        // Nearly all of it: what is left over is less than the dearest request takes.
        #expect(total > policies[1].limit - 6 && total <= policies[1].limit, "seed \(seed)")
    }

    private func slots(_ redis: RedisTestClient, _ key: String, _ form: PolicyForm) throws -> Int {
        switch form {
        case .window, .leases: return Int(try redis("ZCARD", key)) ?? -1
        case .buckets:
            let answer = try redis("ZRANGE", key, "0", "-1", "WITHSCORES")
            let numbers = answer.split(separator: "'").compactMap { Int($0) }
            return stride(from: 1, to: numbers.count, by: 2).reduce(0) { $0 + numbers[$1] }
        }
    }
}
