// Many nodes over one real Redis, from one printed seed: clocks that are wrong and drift, transactions that are executed
// late, nodes that are killed and come back under the same name.
//
// The nodes are the machines that the gateway runs; only the sockets and the clocks are played. What is checked is what
// was promised: by Redis's own time of execution, no window's length holds more admissions than the limit.

import Hiredis
import Identity
import LinuxIO
import Primitives
import RedisClient
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
}

private final class Nobody: LimitRequester {
    func limitDecided(token: UInt64, verdict: Verdict) {}
}

private final class Simulation {
    final class Node {
        var machine: WindowMachine
        let life: Int
        let socket: BlockingSocket
        let clockOffset: Int64
        let clockDrift: Int64
        /// What was sent last arrives after what was sent before.
        var lastDue = MonotonicTime(nanoseconds: 0)
        var lastReturn = MonotonicTime(nanoseconds: 0)

        init(
            _ machine: consuming WindowMachine, life: Int, socket: BlockingSocket, clockOffset: Int64, clockDrift: Int64
        ) {
            self.machine = machine
            self.life = life
            self.socket = socket
            self.clockOffset = clockOffset
            self.clockDrift = clockDrift
        }
    }

    enum Event {
        case request(subject: Int)
        case execute(node: Int, life: Int, token: UInt64, bytes: [UInt8], parts: Int, isWindow: Bool)
        case answer(node: Int, life: Int, token: UInt64, bytes: [UInt8], parts: Int, time: RedisTime?)
        case restart(node: Int)
    }

    let conditions: Conditions
    let server: RedisServer
    let context: LimiterContext
    let started = SystemClock.monotonic()
    var random: SplitMix64
    var nodes: [Node] = []
    var schedule: [(at: MonotonicTime, event: Event)] = []
    var asked = 0
    var answered = 0
    var late = 0
    var admissions: [[RedisTime]]
    var subjects: [SubjectKey]
    let nobody = Nobody()

    init(_ conditions: Conditions, seed: UInt64) throws {
        self.conditions = conditions
        random = SplitMix64(seed: seed)
        server = try RedisServer()
        let policy = Policy(name: "sim", limit: conditions.limit, window: conditions.window, burst: 1)
        context = LimiterContext(policy, lossRule: .closed, timeout: .seconds(60), boot: 0, seed: seed)
        subjects = conditions.pressures.indices.map { SubjectKey(IPAddress(v4: UInt32($0) + 1)) }
        admissions = conditions.pressures.map { _ in [] }
        for _ in 0..<conditions.nodes { nodes.append(try makeNode(life: 0)) }
    }

    /// Each node has memories of its own; a new life has new ones, and a new boot value.
    private func makeNode(life: Int) throws -> Node {
        let own = LimiterContext(
            context.policy, lossRule: .closed, timeout: .seconds(60), boot: random.next(), seed: random.next())
        let node = Node(
            WindowMachine(own, worker: 0), life: life, socket: try BlockingSocket(unix: server.socketPath),
            clockOffset: Int64.random(in: -1_000_000_000_000...1_000_000_000_000, using: &random),
            clockDrift: Int64.random(
                in: -conditions.clockErrorPerMillion...conditions.clockErrorPerMillion, using: &random))
        let sent = now(of: node)
        let client = try server.client()
        let time = try client.time()
        node.machine.connected(ServerTimeSample(sentAt: sent, receivedAt: now(of: node), time: time))
        return node
    }

    private func now(of node: Node) -> MonotonicTime {
        let real = (SystemClock.monotonic() - started).nanoseconds
        return MonotonicTime(nanoseconds: real + real / 1_000_000 * node.clockDrift + node.clockOffset)
    }

    private func transit() -> TimeSpan {
        let usual = conditions.transit.nanoseconds
        return .nanoseconds(Int64.random(in: usual / 4...usual, using: &random))
    }

    private func add(_ at: MonotonicTime, _ event: Event) {
        // Few are pending at any time: an ordered list is quick enough.
        var place = schedule.count
        while place > 0, schedule[place - 1].at < at { place -= 1 }
        schedule.insert((at, event), at: place)
    }

    func run() throws {
        let begin = SystemClock.monotonic()
        let end = begin + conditions.duration
        for subject in subjects.indices { add(begin, .request(subject: subject)) }
        if conditions.restartEvery < .max { add(begin + conditions.restartEvery, .restart(node: 0)) }
        while let (at, event) = schedule.popLast() {
            while SystemClock.monotonic() < at {}
            switch event {
            case .request(let subject): if at < end { try request(subject) }
            case .execute(let index, let life, let token, let bytes, let parts, let isWindow):
                try execute(index, life, token, bytes, parts, isWindow)
            case .answer(let index, let life, let token, let bytes, let parts, let time):
                try answer(index, life, token, bytes, parts, time)
            case .restart(let index):
                guard at < end else { continue }
                nodes[index] = try makeNode(life: nodes[index].life + 1)
                add(at + conditions.restartEvery, .restart(node: (index + 1) % nodes.count))
            }
        }
    }

    private func request(_ subject: Int) throws {
        let perSecond = Double(conditions.limit) / conditions.window.seconds * conditions.pressures[subject]
        let now = SystemClock.monotonic()
        // Now and then several at once.
        let burst = Int.random(in: 0..<20, using: &random) == 0 ? 10 : 1
        let pause = Double.random(in: 0...2, using: &random) / perSecond * Double(burst)
        add(now + .nanoseconds(Int64(pause * 1e9)), .request(subject: subject))
        let index = Int.random(in: nodes.indices, using: &random)
        for _ in 0..<burst {
            asked += 1
            let decision = nodes[index].machine.ask(
                subjects[subject], nobody, token: UInt64(subject), at: self.now(of: nodes[index]))
            if decision != .pending { answered += 1 }
        }
        try flush(index)
    }

    private func flush(_ index: Int) throws {
        while let transmission = nodes[index].machine.next(at: now(of: nodes[index])) {
            var writer = CommandWriter()
            var parts = 1
            var isWindow = false
            switch transmission.form {
            case .command: nodes[index].machine.write(transmission, to: &writer)
            case .transaction(let commands):
                writer.add("MULTI")
                writer.end()
                nodes[index].machine.write(transmission, to: &writer)
                writer.add("EXEC")
                writer.end()
                parts = commands + 2
                isWindow = commands == WindowTransaction.commandCount
            }
            var delay = transit()
            if Int.random(in: 0..<1_000, using: &random) < conditions.latePerMille {
                delay = delay + .nanoseconds(Int64.random(in: 0...conditions.lateMax.nanoseconds, using: &random))
            }
            let due = max(nodes[index].lastDue, SystemClock.monotonic() + delay)
            nodes[index].lastDue = due
            add(
                due,
                .execute(
                    node: index, life: nodes[index].life, token: transmission.token, bytes: writer.output.array,
                    parts: parts, isWindow: isWindow))
        }
    }

    private func execute(
        _ index: Int, _ life: Int, _ token: UInt64, _ bytes: [UInt8], _ parts: Int, _ isWindow: Bool
    ) throws {
        // A killed node's bytes may still be in the server's socket: they are executed, and nobody hears the answer.
        let socket = nodes[index].life == life ? nodes[index].socket : try BlockingSocket(unix: server.socketPath)
        try socket.send(bytes.span)
        var reader = ReplyReader()
        var received: [UInt8] = []
        var left = parts
        while left > 0 {
            let piece = try socket.receive()
            received += piece
            reader.feed(piece.span)
            while left > 0, try reader.next() { left -= 1 }
        }
        var time: RedisTime?
        if isWindow {
            time = RedisTime(
                microseconds: (reader.reply.integer(2) ?? 0) * 1_000_000 + (reader.reply.integer(3) ?? 0))
        }
        guard nodes[index].life == life else { return }
        let due = max(nodes[index].lastReturn, SystemClock.monotonic() + transit())
        nodes[index].lastReturn = due
        add(due, .answer(node: index, life: life, token: token, bytes: received, parts: parts, time: time))
    }

    private func answer(
        _ index: Int, _ life: Int, _ token: UInt64, _ bytes: [UInt8], _ parts: Int, _ time: RedisTime?
    ) throws {
        guard nodes[index].life == life else { return }
        var reader = ReplyReader()
        reader.feed(bytes.span)
        for _ in 0..<parts { _ = try reader.next() }
        var admittedAt = time
        if case .confirmation(_, _, let confirmed) = nodes[index].machine.flights[Int(token)] {
            admittedAt = confirmed
            late += 1
        }
        nodes[index].machine.replied(token, reader.reply, at: now(of: nodes[index]))
        var answers: [LimitAnswer] = []
        nodes[index].machine.takeAnswers(into: &answers)
        for answer in answers {
            answered += 1
            switch answer.verdict {
            case .admit: admissions[Int(answer.token)].append(try #require(admittedAt))
            case .refuse: break
            }
        }
        #expect(nodes[index].machine.takeEvents() == [])
        try flush(index)
    }

    /// The most admissions of a subject in any window's length, and how many of them there were in all.
    func verify(seed: UInt64) {
        for (subject, times) in admissions.enumerated() {
            let sorted = times.sorted()
            var violations = 0
            for i in sorted.indices where i + conditions.limit < sorted.count {
                if sorted[i + conditions.limit] - sorted[i] <= conditions.window { violations += 1 }
            }
            #expect(violations == 0, "seed \(seed), subject \(subject): \(violations) of \(sorted.count)")
        }
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
    ]

    @Test("no window ever holds more than the limit, by Redis's time", arguments: conditions)
    func exact(conditions: Conditions) throws {
        let seed = SystemClock.random64()
        let simulation = try Simulation(conditions, seed: seed)
        try simulation.run()
        simulation.verify(seed: seed)
        let total = simulation.admissions.reduce(0) { $0 + $1.count }
        #expect(total > 0)
        if conditions.restartEvery == .max { #expect(simulation.answered == simulation.asked, "seed \(seed)") }
        if conditions.latePerMille > 0 { #expect(simulation.late > 0, "seed \(seed)") }
        print("\(conditions.testDescription): \(simulation.asked) asked, \(total) admitted, \(simulation.late) late")
    }

    @Test("a client that hammers at five times its limit gets at least 0.97 of it")
    func noStarvation() throws {
        let seed = SystemClock.random64()
        let simulation = try Simulation(
            Conditions(
                testDescription: "hammering", limit: 100, window: .seconds(1), duration: .seconds(5), pressures: [5]),
            seed: seed)
        try simulation.run()
        simulation.verify(seed: seed)
        // Five windows, the first of which begins empty: at most 500, and a few at the end of the fifth.
        #expect(simulation.admissions[0].count >= 485, "seed \(seed)")
    }
}
