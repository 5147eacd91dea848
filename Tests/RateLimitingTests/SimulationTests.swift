// Many nodes over one real Redis, from one printed seed: clocks that are wrong and drift, transactions that are executed
// late, nodes that are killed and come back under the same name, connections that break, and on a cluster windows that
// move between two servers.
//
// The nodes are the machines that the gateway runs; only the sockets and the clocks are played. What is checked is what
// was promised: by Redis's own time of execution, no window's length holds more admissions than the limit.

import Hiredis
import Identity
import LinuxIO
import Primitives
import RedisClient
import Synchronization
import TestSupport
import Testing

@testable import RateLimiting

/// What the simulated world is like.
struct Conditions: Sendable, CustomTestStringConvertible {
    var testDescription: String
    var nodes = 4
    var limit = 40
    var window = TimeSpan.milliseconds(300)
    var duration = TimeSpan.seconds(3)
    /// Requests a second of each subject, as a multiple of its limit.
    var pressures: [Double] = [5, 1.2, 0.7]
    /// Transit times, each way.
    var transit = TimeSpan.microseconds(300)
    /// How often in a thousand a transaction is late, and by how much at most.
    var latePerMille = 0
    var lateMax = TimeSpan.zero
    var clockErrorPerMillion: Int64 = 300
    var restartEvery = TimeSpan.max
    /// How often some node loses its connections, and with them answers that were on their way.
    var breakEvery = TimeSpan.max
    /// On a cluster of two: how often each subject's window begins to move to the other server.
    var moveEvery = TimeSpan.max
    /// How often the server's clock is set, and by how much at most.
    var stepEvery = TimeSpan.max
    var stepMax = TimeSpan.zero
    /// How long a node waits for Redis.
    var timeout = TimeSpan.seconds(60)
    /// Whether the server hangs now and then while a node connects, which then knows the time so roughly that what it
    /// lets in holds its places for longer than the window.
    var hangsAtConnect = true
}

/// What the nodes write down.
final class Ledger: DecisionRecorder {
    struct Entry: Sendable {
        var subject: SubjectKey
        var count: Int
        var time: RedisTime
    }
    let entries = Mutex<[Entry]>([])

    func admitted(_ count: Int, _ subject: SubjectKey, by source: VerdictSource, at time: RedisTime?) {
        guard let time else { return }
        if source == .window { entries.withLock { $0.append(Entry(subject: subject, count: count, time: time)) } }
    }

    /// The most admissions of one subject of a policy in any window's length, by the clock that `unset` goes by.
    func fullest(_ window: TimeSpan, policy: UInt8, unset: (RedisTime) -> RedisTime = { $0 }) -> Int {
        var fullest = 0
        let entries = entries.withLock { $0.filter { $0.subject.policy == policy } }
        for (_, list) in Dictionary(grouping: entries, by: \.subject) {
            let sorted = list.map { (time: unset($0.time), count: $0.count) }.sorted { $0.time < $1.time }
            var (first, inside) = (0, 0)
            for entry in sorted {
                inside += entry.count
                while entry.time - sorted[first].time > window {
                    inside -= sorted[first].count
                    first += 1
                }
                fullest = max(fullest, inside)
            }
        }
        return fullest
    }

    func total(_ subject: SubjectKey) -> Int {
        entries.withLock { $0.filter { $0.subject == subject }.reduce(0) { $0 + $1.count } }
    }
}

private final class Nobody: LimitRequester {
    func limitDecided(token: UInt64, verdict: Verdict) {}
}

private final class Simulation {
    /// One node's connection to one server, and what it decides there.
    final class Side {
        var machine: WindowMachine
        var life = 0
        var socket: BlockingSocket
        /// What was sent last arrives after what was sent before.
        var lastDue = MonotonicTime(nanoseconds: 0)
        var lastReturn = MonotonicTime(nanoseconds: 0)
        /// What has no answer.
        var underWay: Set<UInt64> = []
        /// Until when windows are believed to be here that are on their way.
        var asked: [SubjectKey: MonotonicTime] = [:]

        init(_ machine: consuming WindowMachine, socket: BlockingSocket) {
            self.machine = machine
            self.socket = socket
        }
    }

    final class Node {
        let sides: [Side]
        let life: Int
        let clockOffset: Int64
        let clockDrift: Int64
        /// The server that holds each subject, as far as this node knows.
        var owners: [Int]

        init(_ sides: [Side], life: Int, clockOffset: Int64, clockDrift: Int64, owners: [Int]) {
            self.sides = sides
            self.life = life
            self.clockOffset = clockOffset
            self.clockDrift = clockDrift
            self.owners = owners
        }
    }

    /// Which connection: of a node's life, and of its own.
    struct Line {
        var node: Int
        var life: Int
        var side: Int
        var sideLife: Int
    }

    enum Step { case begin, keys, end }

    enum Event {
        case request(subject: Int)
        case execute(Line, Sent, subject: SubjectKey?, isAsking: Bool)
        case answer(Line, Sent, received: [UInt8])
        case redirection(Line, token: UInt64, isMoved: Bool)
        case restart(node: Int)
        case disconnect(node: Int)
        case move(subject: Int, Step)
        case step
        case tick
        /// Requests that wait for a window's time are due.
        case due(node: Int)
    }

    let conditions: Conditions
    let server: SimulatedServer
    let policy: Policy
    let ledger = Ledger()
    let subjects: [SubjectKey]
    var random: SplitMix64
    var nodes: [Node] = []
    var schedule = Schedule<Event>()
    var asked = 0
    var answered = 0
    var late = 0
    var redirected = 0
    var moves = 0
    /// Where each subject's window is, and whether it is on its way to the other server.
    var homes: [Int]
    var isMoving: [Bool]
    let nobody = Nobody()
    let clients: [RedisTestClient]
    /// For what was sent over connections that are gone.
    let dead: [BlockingSocket]

    init(_ conditions: Conditions, seed: UInt64) throws {
        self.conditions = conditions
        random = SplitMix64(seed: seed)
        let server = try SimulatedServer()
        self.server = server
        policy = Policy(name: "sim", limit: conditions.limit, window: conditions.window, burst: 1)
        subjects = conditions.pressures.indices.map { SubjectKey(IPAddress(v4: UInt32($0) + 1)) }
        homes = subjects.map { _ in 0 }
        isMoving = subjects.map { _ in false }
        clients = try (0..<2).map { RedisTestClient(try server.socket(database: $0)) }
        dead = try (0..<2).map { try server.socket(database: $0) }
        for _ in 0..<conditions.nodes { nodes.append(try makeNode(life: 0)) }
    }

    private var onCluster: Bool { conditions.moveEvery < .max }

    /// Each node has memories of its own; a new life has new ones, and a new boot value.
    private func makeNode(life: Int) throws -> Node {
        let context = LimiterContext(
            policies: [policy], services: [], lossRule: .closed, timeout: conditions.timeout, boot: random.next(),
            seed: random.next(), decisions: ledger)
        let sides = try (0..<(onCluster ? 2 : 1)).map { side in
            Side(WindowMachine(context, worker: 0, shard: side), socket: try server.socket(database: side))
        }
        let node = Node(
            sides, life: life,
            clockOffset: Int64.random(in: -1_000_000_000_000...1_000_000_000_000, using: &random),
            clockDrift: Int64.random(
                in: -conditions.clockErrorPerMillion...conditions.clockErrorPerMillion, using: &random),
            owners: homes)
        for side in sides { connect(side, of: node) }
        return node
    }

    private func connect(_ side: Side, of node: Node) {
        let now = now(of: node)
        // Now and then the server hangs just then, and says very late what time it is.
        let hangs = Int.random(in: 0..<6, using: &random) == 0 && conditions.hangsAtConnect
        let slowness: Int64 = hangs ? 3 * conditions.window.nanoseconds : 0
        let away = Int64.random(in: 0...conditions.transit.nanoseconds * 2 + slowness, using: &random)
        side.machine.connected(ServerTimeSample(sentAt: now - .nanoseconds(away), receivedAt: now, time: server.time))
    }

    private func now(of node: Node) -> MonotonicTime {
        let real = server.now.nanoseconds
        return MonotonicTime(nanoseconds: real + real / 1_000_000 * node.clockDrift + node.clockOffset)
    }

    private func transit() -> TimeSpan {
        let usual = conditions.transit.nanoseconds
        return .nanoseconds(Int64.random(in: usual / 4...usual, using: &random))
    }

    private func pause(_ usual: TimeSpan) -> TimeSpan {
        .nanoseconds(Int64.random(in: usual.nanoseconds / 2...usual.nanoseconds * 3 / 2, using: &random))
    }

    private func add(after pause: TimeSpan, _ event: Event) { add(server.now + pause, event) }

    private func add(_ at: MonotonicTime, _ event: Event) { schedule.add(at, event) }

    private func side(_ line: Line) -> Side? {
        guard nodes[line.node].life == line.life else { return nil }
        let side = nodes[line.node].sides[line.side]
        return side.life == line.sideLife ? side : nil
    }

    func run() throws {
        let end = server.now + conditions.duration
        for subject in subjects.indices {
            add(server.now, .request(subject: subject))
            if onCluster { add(after: pause(conditions.moveEvery), .move(subject: subject, .begin)) }
        }
        if conditions.restartEvery < .max { add(after: conditions.restartEvery, .restart(node: 0)) }
        if conditions.breakEvery < .max { add(after: pause(conditions.breakEvery), .disconnect(node: 0)) }
        if conditions.stepEvery < .max { add(after: pause(conditions.stepEvery), .step) }
        if conditions.timeout < .seconds(60) { add(server.now, .tick) }
        while let (at, event) = schedule.next() {
            server.advance(to: at)
            switch event {
            case .request(let subject): if at < end { try request(subject) }
            case .execute(let line, let sent, let subject, let isAsking): try execute(line, sent, subject, isAsking)
            case .answer(let line, let sent, let received): try answer(line, sent, received)
            case .redirection(let line, let token, let isMoved): try redirect(line, token, isMoved)
            case .restart(let index):
                guard at < end else { continue }
                nodes[index] = try makeNode(life: nodes[index].life + 1)
                add(after: conditions.restartEvery, .restart(node: (index + 1) % nodes.count))
            case .disconnect(let index):
                guard at < end else { continue }
                for side in nodes[index].sides { try breakConnection(side, of: nodes[index]) }
                try flush(index)
                add(after: pause(conditions.breakEvery), .disconnect(node: (index + 1) % nodes.count))
            case .move(let subject, let step): if at < end { try move(subject, step) }
            case .step:
                guard at < end else { continue }
                let most = conditions.stepMax.nanoseconds
                server.ahead = server.ahead + .nanoseconds(Int64.random(in: -most...most, using: &random))
                add(after: pause(conditions.stepEvery), .step)
            case .due(let index): try flush(index)
            case .tick:
                for index in nodes.indices { try tick(index) }
                if at < end + .seconds(1) { add(after: .milliseconds(10), .tick) }
            }
        }
    }

    // MARK: The nodes

    private func request(_ subject: Int) throws {
        let perSecond = Double(conditions.limit) / conditions.window.seconds * conditions.pressures[subject]
        // Now and then several at once.
        let burst = Int.random(in: 0..<20, using: &random) == 0 ? 10 : 1
        let pause = Double.random(in: 0...2, using: &random) / perSecond * Double(burst)
        add(after: .nanoseconds(Int64(pause * 1e9)), .request(subject: subject))
        let index = Int.random(in: nodes.indices, using: &random)
        let node = nodes[index]
        for _ in 0..<burst {
            asked += 1
            let decision = node.sides[node.owners[subject]].machine.ask(
                subjects[subject], nobody, token: UInt64(subject), at: now(of: node))
            if decision != .pending { answered += 1 }
        }
        try flush(index)
    }

    private func flush(_ index: Int) throws {
        for side in nodes[index].sides.indices { try flush(index, side) }
    }

    private func flush(_ index: Int, _ number: Int) throws {
        let node = nodes[index]
        let side = node.sides[number]
        while let transmission = side.machine.next(at: now(of: node)) { send(transmission, index, number) }
        if let due = side.machine.heldUntil {
            add(after: max(.zero, due - now(of: node)) + .microseconds(1), .due(node: index))
        }
        var answers: [LimitAnswer] = []
        side.machine.takeAnswers(into: &answers)
        answered += answers.count
        for event in side.machine.takeEvents() {
            switch event {
            case .reached: break
            case .lost, .restored: #expect(conditions.breakEvery < .max || conditions.timeout < .seconds(60))
            case .anomaly where conditions.stepEvery < .max: break
            case .anomaly, .keyFailed, .dataLost: Issue.record("\(event)")
            }
        }
    }

    private func send(_ transmission: Transmission, _ index: Int, _ number: Int) {
        let node = nodes[index]
        let side = node.sides[number]
        if case .confirmation = side.machine.flights[Int(transmission.token)] { late += 1 }
        let subject = side.machine.subject(of: transmission)
        let isAsking = subject.map { side.asked[$0].map { server.now < $0 } ?? false } ?? false
        var delay = transit()
        if Int.random(in: 0..<1_000, using: &random) < conditions.latePerMille {
            delay = delay + .nanoseconds(Int64.random(in: 0...conditions.lateMax.nanoseconds, using: &random))
        }
        side.lastDue = max(side.lastDue, server.now + delay)
        side.underWay.insert(transmission.token)
        let line = Line(node: index, life: node.life, side: number, sideLife: side.life)
        let sent = Sent(transmission, of: side.machine)
        add(side.lastDue, .execute(line, sent, subject: subject, isAsking: isAsking))
    }

    private func answer(_ line: Line, _ sent: Sent, _ received: [UInt8]) throws {
        guard let side = side(line) else { return }
        let reply = try sent.reply(received)
        side.underWay.remove(sent.token)
        side.machine.replied(sent.token, reply, at: now(of: nodes[line.node]))
        #expect(side.machine.takeMistrust() == nil)
        try flush(line.node)
    }

    private func tick(_ index: Int) throws {
        let node = nodes[index]
        for (number, side) in node.sides.enumerated() {
            side.machine.expire(through: now(of: node), at: now(of: node))
            if let probe = side.machine.probe(at: now(of: node)) { send(probe, index, number) }
        }
        try flush(index)
    }

    /// The connection breaks, and another is made at once. What was sent may still be executed.
    private func breakConnection(_ side: Side, of node: Node) throws {
        side.life += 1
        for token in side.underWay.sorted() { side.machine.failed(token, .lost("cut"), at: now(of: node)) }
        side.underWay = []
        side.machine.disconnected(.lost("cut"), at: now(of: node))
        connect(side, of: node)
    }

    // MARK: The servers

    private func place(_ subject: SubjectKey) -> Int { subjects.firstIndex(of: subject) ?? 0 }

    private func key(_ subject: Int) -> String { "\(policy.keyPrefix)\(subjects[subject])" }

    private func execute(_ line: Line, _ sent: Sent, _ subject: SubjectKey?, _ isAsking: Bool) throws {
        let side = side(line)
        let back = side.map { max($0.lastReturn, server.now + transit()) }
        if let back { side?.lastReturn = back }
        if onCluster, let subject, let isMoved = try redirection(place(subject), at: line.side, isAsking) {
            redirected += 1
            if let back { add(back, .redirection(line, token: sent.token, isMoved: isMoved)) }
            return
        }
        // What a connection carried that is gone may still be in the server's socket: it is executed, and nobody hears of
        // it.
        let socket = side?.socket ?? dead[line.side]
        let received = try server.execute(sent, on: socket)
        if let back { add(back, .answer(line, sent, received: received)) }
    }

    /// What a server says to whoever asks for a subject: `nil` where it serves, else whether it is `MOVED` or `ASK`.
    private func redirection(_ subject: Int, at server: Int, _ isAsking: Bool) throws -> Bool? {
        guard homes[subject] == server else { return isMoving[subject] && isAsking ? nil : true }
        guard isMoving[subject], try clients[server]("EXISTS", key(subject)) == "0" else { return nil }
        return false
    }

    private func move(_ subject: Int, _ step: Step) throws {
        switch step {
        case .begin:
            isMoving[subject] = true
            add(after: pause(.milliseconds(5)), .move(subject: subject, .keys))
        case .keys:
            // A window that is at both ends would be two.
            let (from, to) = (homes[subject], 1 - homes[subject])
            if try clients[from]("EXISTS", key(subject)) == "1" {
                #expect(try clients[from]("MOVE", key(subject), "\(to)") == "1")
            }
            add(after: pause(.milliseconds(5)), .move(subject: subject, .end))
        case .end:
            homes[subject] = 1 - homes[subject]
            isMoving[subject] = false
            moves += 1
            add(after: pause(conditions.moveEvery), .move(subject: subject, .begin))
        }
    }

    /// What `LimiterCluster` does.
    private func redirect(_ line: Line, _ token: UInt64, _ isMoved: Bool) throws {
        guard let side = side(line) else { return }
        let node = nodes[line.node]
        let now = now(of: node)
        side.underWay.remove(token)
        let subject = try #require(
            side.machine.subject(of: Transmission(token: token, form: .command)).map { place($0) })
        let handover = side.machine.redirected(token, at: now)
        let other = node.sides[1 - line.side]
        if isMoved, node.owners[subject] == line.side {
            node.owners[subject] = 1 - line.side
            for (number, side) in node.sides.enumerated() {
                for handover in side.machine.takeMisplaced({ node.owners[place($0)] == number }) {
                    node.sides[1 - number].machine.take(handover, at: now)
                }
            }
        }
        if let handover {
            if !isMoved { other.asked[handover.subject] = server.now + Limiter.arrivalMax }
            let target = isMoved ? node.sides[node.owners[subject]] : other
            target.machine.take(handover, at: now)
        }
        try flush(line.node)
    }

    /// That no window's length held more than the limit.
    func verify(seed: UInt64) {
        let most = ledger.fullest(conditions.window, policy: 0) { server.unset($0) }
        #expect(most <= conditions.limit, "seed \(seed): \(most) of \(conditions.limit)")
    }
}

@Suite("A simulated cluster", .serialized)
struct SimulationTests {
    static let conditions: [Conditions] = [
        Conditions(testDescription: "ordinary"),
        Conditions(testDescription: "one request a window", limit: 1, window: .milliseconds(50), pressures: [5, 40]),
        Conditions(
            testDescription: "late by up to three windows", latePerMille: 30, lateMax: .milliseconds(900)),
        Conditions(
            testDescription: "often late, restarts", nodes: 3, limit: 15, transit: .milliseconds(6), latePerMille: 150,
            lateMax: .milliseconds(60), restartEvery: .milliseconds(70)),
        Conditions(
            testDescription: "more requests than entries of a transaction", nodes: 2, limit: 1_500,
            window: .milliseconds(500), duration: .seconds(2), pressures: [3], transit: .milliseconds(40)),
        Conditions(
            testDescription: "connections that break", limit: 15, window: .milliseconds(100), pressures: [9, 1.5],
            transit: .milliseconds(8), latePerMille: 50, lateMax: .milliseconds(30), breakEvery: .milliseconds(25)),
        Conditions(
            testDescription: "connections that break, short of time", limit: 15, window: .milliseconds(100),
            pressures: [9, 1.5], transit: .milliseconds(5), latePerMille: 50, lateMax: .milliseconds(60),
            breakEvery: .milliseconds(60), timeout: .milliseconds(30)),
        Conditions(
            testDescription: "windows that move", limit: 15, window: .milliseconds(100), pressures: [9, 1.5],
            transit: .milliseconds(8), latePerMille: 50, lateMax: .milliseconds(30), moveEvery: .milliseconds(120)),
        Conditions(
            testDescription: "windows that move, connections that break, restarts", limit: 10,
            window: .milliseconds(100), pressures: [9, 1.5], transit: .milliseconds(8), latePerMille: 50,
            lateMax: .milliseconds(60), restartEvery: .milliseconds(170), breakEvery: .milliseconds(60),
            moveEvery: .milliseconds(150), timeout: .milliseconds(40)),
        Conditions(
            testDescription: "a server whose clock is set", limit: 15, window: .milliseconds(100),
            duration: .seconds(8), pressures: [9, 1.5], transit: .milliseconds(4), latePerMille: 50,
            lateMax: .milliseconds(30), stepEvery: .milliseconds(2_600), stepMax: .seconds(2)),
        Conditions(
            testDescription: "a server whose clock is set, connections that break", limit: 15,
            window: .milliseconds(200), duration: .seconds(8), pressures: [9, 1.5], transit: .milliseconds(4),
            latePerMille: 50, lateMax: .milliseconds(30), breakEvery: .milliseconds(150),
            stepEvery: .milliseconds(2_600), stepMax: .milliseconds(700)),
    ]

    @Test("no window ever holds more than the limit, by Redis's time", arguments: conditions)
    func exact(conditions: Conditions) throws {
        for round in 0..<SimulatedServer.rounds {
            let seed = SimulatedServer.seed &+ UInt64(round)
            let simulation = try Simulation(conditions, seed: seed)
            defer { simulation.server.server.kill() }
            try simulation.run()
            simulation.verify(seed: seed)
            let total = simulation.subjects.reduce(0) { $0 + simulation.ledger.total($1) }
            #expect(total > 0, "seed \(seed)")
            if conditions.restartEvery == .max { #expect(simulation.answered == simulation.asked, "seed \(seed)") }
            if conditions.latePerMille > 0 { #expect(simulation.late > 0, "seed \(seed)") }
            if conditions.moveEvery < .max {
                #expect(simulation.moves > 0 && simulation.redirected > 0, "seed \(seed)")
            }
            guard SimulatedServer.rounds == 1 else { continue }
            let counts = "\(simulation.asked) asked, \(total) admitted, \(simulation.late) late"
            print("\(conditions.testDescription): \(counts)")
        }
    }

    /// Far more often than clocks are set: steps come while nodes are still connecting.
    private static let manySteps = Conditions(
        testDescription: "many steps", limit: 15, window: .milliseconds(200), pressures: [9, 1.5],
        transit: .milliseconds(4), latePerMille: 50, lateMax: .milliseconds(30), breakEvery: .milliseconds(150),
        stepEvery: .milliseconds(130), stepMax: .milliseconds(500))

    @Test(
        "a step that hid in what a node did not know, once 16 of 15, is allowed for",
        arguments: [1_890_397_865_522_071_817] as [UInt64])
    func hiddenSteps(seed: UInt64) throws {
        let simulation = try Simulation(Self.manySteps, seed: seed)
        defer { simulation.server.server.kill() }
        try simulation.run()
        simulation.verify(seed: seed)
    }

    @Test("a client that hammers at five times its limit gets at least 0.97 of it")
    func noStarvation() throws {
        let seed = SimulatedServer.seed
        let simulation = try Simulation(
            Conditions(
                testDescription: "hammering", limit: 100, window: .seconds(1), duration: .seconds(6), pressures: [5],
                hangsAtConnect: false),
            seed: seed)
        defer { simulation.server.server.kill() }
        try simulation.run()
        simulation.verify(seed: seed)
        // Five windows from the first admission on, which waits until a node has Redis.
        let times = simulation.ledger.entries.withLock { $0 }
        let first = try #require(times.map(\.time).min())
        let admitted = times.filter { $0.time - first < .seconds(5) }.reduce(0) { $0 + $1.count }
        #expect(admitted >= 485, "seed \(seed)")
    }
}
