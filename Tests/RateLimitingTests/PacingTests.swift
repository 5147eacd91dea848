// What a hot key of a high limit costs, and what its clients wait: several workers of a node over one real Redis, in a time
// that the test plays.

import Hiredis
import Identity
import LinuxIO
import Primitives
import RedisClient
import TestSupport
import Testing

@testable import RateLimiting

private let hot = SubjectKey(IPAddress(v4: 0x0a00_0001))

private func at(_ milliseconds: Int64) -> MonotonicTime {
    MonotonicTime(nanoseconds: 0) + .milliseconds(milliseconds)
}

/// Who hears of verdicts. A machine holds it, and may not hold the node that holds the machine.
private final class Ear: LimitRequester {
    weak var node: HotNode?
    func limitDecided(token: UInt64, verdict: Verdict) { node?.decided(token, verdict) }
}

/// A node, and clients that ask again as soon as they are answered, or at a pace of their own.
private final class HotNode {
    final class Worker {
        var machine: WindowMachine
        let socket: BlockingSocket
        /// When it is to be looked after again.
        var due = MonotonicTime.distantFuture

        init(_ machine: consuming WindowMachine, socket: BlockingSocket) {
            self.machine = machine
            self.socket = socket
        }
    }

    enum Event {
        case request(connection: Int, wave: Int)
        case execute(worker: Int, Sent)
        case answer(worker: Int, Sent, received: [UInt8])
        case due(worker: Int)
    }

    let server: SimulatedServer
    let context: LimiterContext
    let ledger = Ledger()
    let ear = Ear()
    var workers: [Worker] = []
    var schedule = Schedule<Event>()
    /// What each request asks of each policy.
    var subjects = [hot]
    var costs: [UInt16] = []
    /// From one request of a connection to the next; `nil`: so much after the answer.
    var pace: TimeSpan?
    var pause = TimeSpan.milliseconds(1)
    /// When transactions on the first subject's window were sent.
    var sent: [MonotonicTime] = []
    var admitted = 0
    var refused = 0
    var askedAt: [UInt64: MonotonicTime] = [:]
    var longest = TimeSpan.zero
    private var token: UInt64 = 0
    private var connections: [UInt64: (Int, wave: Int)] = [:]
    /// The clients that are there; those of before ask no more.
    private var wave = 0

    /// Each way.
    static let transit = TimeSpan.microseconds(100)

    init(
        _ policies: [Policy], workers count: Int = 2, rule: LossRule = .closed, timeout: TimeSpan = .milliseconds(50)
    ) throws {
        let server = try SimulatedServer()
        self.server = server
        server.advance(to: at(1_000))
        context = LimiterContext(
            policies: policies, services: [], lossRule: rule, timeout: timeout, boot: 0xb007, seed: 5,
            decisions: ledger)
        for number in 0..<count {
            let worker = Worker(WindowMachine(context, worker: number), socket: try server.socket())
            worker.machine.connected(
                ServerTimeSample(sentAt: now - Self.transit, receivedAt: now, time: server.time))
            workers.append(worker)
        }
        ear.node = self
    }

    convenience init(limit: Int, window: TimeSpan = .seconds(1), workers: Int = 2) throws {
        try self.init([Policy(name: "hot", limit: limit, window: window, burst: 1)], workers: workers)
    }

    deinit { server.server.kill() }

    var now: MonotonicTime { server.now }

    /// Asks on a worker, and lets it send what it has.
    func ask(_ connection: Int) {
        token += 1
        askedAt[token] = now
        connections[token] = (connection, wave)
        let worker = workers[connection % workers.count]
        if subjects.count == 1, costs.isEmpty {
            switch worker.machine.ask(subjects[0], ear, token: token, at: now) {
            case .decided(let verdict): decided(token, verdict)
            case .pending: break
            }
        } else {
            switch worker.machine.ask(all: subjects, costs: costs, ear, token: token, at: now) {
            case .decided(let report): decided(token, report.verdict)
            case .pending: break
            }
        }
        flush(connection % workers.count)
    }

    func decided(_ token: UInt64, _ verdict: Verdict) {
        guard let asked = askedAt.removeValue(forKey: token),
            let (connection, wave) = connections.removeValue(forKey: token)
        else {
            Issue.record("answered twice")
            return
        }
        longest = max(longest, now - asked)
        if case .refuse = verdict { refused += 1 } else { admitted += 1 }
        if pace == nil { schedule.add(now + pause, .request(connection: connection, wave: wave)) }
    }

    func flush(_ index: Int) {
        let worker = workers[index]
        while let transmission = worker.machine.next(at: now) {
            if case .window(let flight) = worker.machine.flights[Int(transmission.token)],
                flight.transaction.subject == subjects[0]
            {
                sent.append(now)
            }
            schedule.add(now + Self.transit, .execute(worker: index, Sent(transmission, of: worker.machine)))
        }
        deliver(worker)
        if let due = worker.machine.heldUntil, due < worker.due {
            worker.due = due
            schedule.add(due, .due(worker: index))
        }
    }

    func deliver(_ worker: Worker) {
        var answers: [LimitAnswer] = []
        worker.machine.takeAnswers(into: &answers)
        for answer in answers {
            if let report = worker.machine.takeReport(answer) {
                decided(answer.token, report.verdict)
            } else {
                decided(answer.token, answer.verdict)
            }
        }
    }

    /// Plays everything that happens until then.
    func run(until end: MonotonicTime) throws {
        while let (time, event) = schedule.next() {
            guard time <= end else {
                schedule.add(time, event)
                break
            }
            server.advance(to: time)
            switch event {
            case .request(let connection, let wave):
                guard wave == self.wave else { continue }
                if let pace { schedule.add(time + pace, .request(connection: connection, wave: wave)) }
                ask(connection)
            case .execute(let index, let sent):
                let received = try server.execute(sent, on: workers[index].socket)
                schedule.add(time + Self.transit, .answer(worker: index, sent, received: received))
            case .answer(let index, let sent, let received):
                workers[index].machine.replied(sent.token, try sent.reply(received), at: time)
                #expect(workers[index].machine.takeMistrust() == nil)
                flush(index)
            case .due(let index):
                workers[index].due = .distantFuture
                flush(index)
            }
        }
        server.advance(to: end)
    }

    /// So many connections, spread over the workers.
    func load(_ count: Int, pace: TimeSpan? = nil) {
        self.pace = pace
        wave += 1
        for connection in 0..<count {
            let offset = (pace ?? .microseconds(100)).nanoseconds * Int64(connection) / Int64(count)
            schedule.add(now + .nanoseconds(offset), .request(connection: connection, wave: wave))
        }
    }

    /// A request after the other; right behind each fourth comes another, on another connection.
    func steady(_ count: Int, pause: TimeSpan) {
        pace = .seconds(1_000)
        wave += 1
        for number in 0..<count {
            for connection in 0..<(number % 4 == 0 ? 2 : 1) {
                let offset = pause * Int64(number) + .microseconds(50) * Int64(connection)
                schedule.add(now + offset, .request(connection: connection, wave: wave))
            }
        }
    }

    /// Lets a client hammer whose window's slots leave one after the other, as they were taken, and counts what happens in
    /// a second of it.
    func hammer(_ connections: Int, limit: Int, window: TimeSpan = .seconds(1)) throws {
        load(4, pace: .nanoseconds(window.nanoseconds * 4 / Int64(limit)))
        try run(until: now + .milliseconds(1_200))
        load(connections)
        try run(until: now + .milliseconds(200))
        sent = []
        (admitted, refused, longest) = (0, 0, .zero)
        try run(until: now + .seconds(1))
    }

    var figures: String {
        "\(sent.count) transactions, \(admitted) admitted and \(refused) refused, after \(longest) at most"
    }

    /// Makes the first subject's window known as full: it may be asked for in half a millisecond.
    func fill(cost: UInt16 = 1) {
        context.fullWindows.remember(
            subjects[0], changesAt: now + .microseconds(500), freesAt: now + .microseconds(500),
            emptyAt: now + .seconds(1), cost: cost, roomFor: 1, pace: .milliseconds(1), at: now - .milliseconds(100))
    }
}

/// A client that hammers, and what it meets.
struct Hammering: Sendable, CustomTestStringConvertible {
    var limit: Int
    var window = TimeSpan.seconds(1)
    var workers: Int
    var connections: Int
    /// From an answer to the next request.
    var pause = TimeSpan.milliseconds(4)
    var testDescription: String { "\(limit)/\(window), \(workers) workers, \(connections) connections" }
}

@Suite("A hot key of a high limit", .serialized)
struct PacingTests {
    @Test(
        "costs a node one transaction in 5 ms and no more, and its client gets the whole limit",
        arguments: [
            Hammering(limit: 250, workers: 2, connections: 8, pause: .microseconds(200)),
            Hammering(limit: 500, workers: 2, connections: 8, pause: .microseconds(200)),
            Hammering(limit: 500, workers: 2, connections: 64),
            Hammering(limit: 1_000, workers: 2, connections: 64),
            Hammering(limit: 1_000, workers: 8, connections: 128),
            Hammering(limit: 100, window: .milliseconds(100), workers: 2, connections: 64),
        ])
    func bound(_ hammering: Hammering) throws {
        let node = try HotNode(limit: hammering.limit, window: hammering.window, workers: hammering.workers)
        node.pause = hammering.pause
        try node.hammer(hammering.connections, limit: hammering.limit, window: hammering.window)
        let whole = Int(1 / hammering.window.seconds) * hammering.limit
        #expect(node.sent.count <= 200, "\(node.figures)")
        #expect(Double(node.admitted) >= (hammering.window < .seconds(1) ? 0.95 : 0.97) * Double(whole))
        #expect(node.ledger.fullest(hammering.window, policy: 0) <= hammering.limit)
        #expect(node.longest <= FullWindowMemory.shortest + HotNode.transit * 2)
    }

    @Test(
        "gives a client with few connections its whole limit too, which takes more transactions",
        arguments: [
            Hammering(limit: 1_000, workers: 2, connections: 2, pause: .microseconds(100)),
            Hammering(limit: 1_000, workers: 2, connections: 8, pause: .microseconds(200)),
            Hammering(limit: 5_000, workers: 2, connections: 8, pause: .microseconds(100)),
            Hammering(limit: 1_000, workers: 16, connections: 64),
        ])
    func few(_ hammering: Hammering) throws {
        let node = try HotNode(limit: hammering.limit, window: hammering.window, workers: hammering.workers)
        node.pause = hammering.pause
        try node.hammer(hammering.connections, limit: hammering.limit)
        #expect(Double(node.admitted) >= 0.97 * Double(hammering.limit), "\(node.figures)")
        // Where some gather, they go together; with a connection to a worker each goes by itself.
        if hammering.connections >= 4 * hammering.workers, hammering.limit == 1_000 {
            #expect(node.sent.count <= 350, "\(node.figures)")
        }
        #expect(node.ledger.fullest(hammering.window, policy: 0) <= hammering.limit)
    }

    @Test("nobody who keeps to the limit is refused or waits for anything but the answer")
    func compliant() throws {
        let node = try HotNode(limit: 1_000)
        node.load(4, pace: .microseconds(4_100))
        try node.run(until: at(5_000))
        #expect(node.refused == 0)
        #expect(node.longest == HotNode.transit * 2)
        #expect(node.admitted > 3_800)
    }

    @Test(
        "who has stopped hammering is let in where there is room, though another of his requests is under way",
        arguments: [1, 2], [1, 2])
    func stopped(policies: Int, workers: Int) throws {
        let wide = Policy(name: "all", limit: 100_000, window: .seconds(1), burst: 1, key: .global)
        let hot = Policy(name: "hot", limit: 300, window: .seconds(1), burst: 1)
        let node = try HotNode(Array([hot, wide].prefix(policies)), workers: workers)
        if policies == 2 { node.subjects.append(SubjectKey(globalOf: 1)) }
        try node.hammer(64, limit: 300)
        // 278 a second. What was let in before has left after a second.
        node.steady(720, pause: .microseconds(4_500))
        try node.run(until: node.now + .milliseconds(1_200))
        (node.admitted, node.refused) = (0, 0)
        try node.run(until: node.now + .seconds(2))
        #expect(node.refused == 0 && node.admitted > 400, "\(node.figures)")
    }

    @Test("who is a little above the limit gets all of it, and waits no longer than the last moment of a full window")
    func above() throws {
        let node = try HotNode(limit: 1_000)
        node.load(4, pace: .microseconds(3_600))
        try node.run(until: at(5_000))
        // Four seconds, of which the first is a full window more.
        #expect(node.admitted >= 3_960)
        #expect(node.longest <= HotNode.transit * 2 + FullWindowMemory.gatheringMax)
    }

    @Test("who comes in the last moment goes when the time has come, with those who come meanwhile; others are refused")
    func lastMoment() throws {
        let node = try HotNode(limit: 1_000)
        node.pace = .seconds(1)
        node.fill()
        for _ in 0..<5 { node.ask(0) }
        node.ask(1)
        // The other worker's is refused: somebody is about to ask.
        #expect(node.refused == 1 && node.admitted == 0)
        #expect(node.workers[0].machine.heldCount == 5)
        try node.run(until: node.now + .microseconds(400))
        #expect(node.sent.isEmpty)
        try node.run(until: node.now + .microseconds(100))
        #expect(node.sent.count == 1)
        try node.run(until: node.now + .milliseconds(1))
        #expect(node.admitted == 5 && node.sent.count == 1)
        #expect(node.workers[0].machine.subjects.count == 0)
    }

    @Test("no more wait than can have room: the others are refused at once")
    func crowd() throws {
        let node = try HotNode(limit: 1_000)
        node.pace = .seconds(1)
        node.fill()
        for _ in 0..<100 { node.ask(0) }
        #expect(node.workers[0].machine.heldCount == 20)
        #expect(node.refused == 80)
        // The time has come, and the turn has not ended: whoever comes now goes along.
        node.server.advance(to: node.now + .microseconds(500))
        node.ask(0)
        #expect(node.refused == 80 && node.sent.count == 1)
    }

    @Test("the loss rule decides who waits, as soon as Redis is lost or the request has no more time")
    func loss() throws {
        for isTimeout in [true, false] {
            let node = try HotNode([Policy(name: "hot", limit: 1_000, window: .seconds(1), burst: 1)], rule: .open)
            node.pace = .seconds(1)
            node.fill()
            for _ in 0..<5 { node.ask(0) }
            let worker = node.workers[0]
            if isTimeout {
                // The loop was busy elsewhere.
                node.server.advance(to: node.now + .milliseconds(50))
                worker.machine.expire(through: node.now, at: node.now)
            } else {
                worker.machine.disconnected(.lost("cut"), at: node.now)
            }
            node.deliver(worker)
            #expect(node.admitted == 5)
            node.flush(0)
            #expect(worker.machine.requests.count == 0 && worker.machine.subjects.count == 0)
            #expect(worker.machine.heldUntil == nil && worker.machine.heldCount == 0)
        }
    }

    @Test("a short timeout leaves as short a wait")
    func shortTimeout() throws {
        let node = try HotNode(
            [Policy(name: "hot", limit: 1_000, window: .seconds(1), burst: 1)], timeout: .milliseconds(2))
        node.pace = .seconds(1)
        node.fill()
        node.ask(0)
        #expect(node.refused == 1)
    }

    static let joined = [
        Policy(name: "hot", limit: 1_000, window: .seconds(1), burst: 1),
        Policy(name: "all", limit: 1_000_000, window: .seconds(1), burst: 1, key: .global),
    ]

    @Test("of several policies all are asked when the time has come, in one write")
    func joinedTogether() throws {
        let node = try HotNode(Self.joined)
        node.pace = .seconds(1)
        node.subjects = [hot, SubjectKey(globalOf: 1)]
        node.fill()
        for _ in 0..<5 { node.ask(0) }
        let machine = node.workers[0]
        #expect(machine.machine.flights.count == 0 && !machine.machine.wantsToSend)
        node.ask(1)
        #expect(node.refused == 1)
        try node.run(until: node.now + .microseconds(500))
        #expect(machine.machine.flights.count == 2)
        try node.run(until: node.now + .milliseconds(1))
        #expect(node.admitted == 5)
        #expect(machine.machine.joins.count == 0 && machine.machine.parts.count == 0)
        #expect(machine.machine.requests.count == 0 && machine.machine.subjects.count == 0)
    }

    @Test("a request of several policies that waits is decided by the loss rule as a whole", arguments: [true, false])
    func joinedLoss(isTimeout: Bool) throws {
        let node = try HotNode(Self.joined, rule: .open)
        node.pace = .seconds(1)
        node.subjects = [hot, SubjectKey(globalOf: 1)]
        node.fill()
        for _ in 0..<5 { node.ask(0) }
        let worker = node.workers[0]
        if isTimeout {
            node.server.advance(to: node.now + .milliseconds(50))
            worker.machine.expire(through: node.now, at: node.now)
        } else {
            worker.machine.disconnected(.lost("cut"), at: node.now)
        }
        node.deliver(worker)
        #expect(node.admitted == 5)
        worker.machine.connected(
            ServerTimeSample(sentAt: node.now - HotNode.transit, receivedAt: node.now, time: node.server.time))
        node.flush(0)
        try node.run(until: node.now + .milliseconds(1))
        // What was let in without Redis is in both windows.
        let client = RedisTestClient(try node.server.socket())
        #expect(try client("ZCARD", "rate_limit:hot:1000/1s:ip:10.0.0.1") == "5")
        #expect(try client("ZCARD", "rate_limit:all:1000000/1s:global") == "5")
        #expect(worker.machine.joins.count == 0 && worker.machine.parts.count == 0)
        #expect(worker.machine.requests.count == 0 && worker.machine.subjects.count == 0)
    }

    @Test("a hot client of several policies costs one transaction in 5 ms of each, too")
    func joinedBound() throws {
        let node = try HotNode(Self.joined)
        node.subjects = [hot, SubjectKey(globalOf: 1)]
        try node.hammer(64, limit: 1_000)
        #expect(node.sent.count <= 200, "\(node.figures)")
        #expect(node.admitted >= 970)
        #expect(node.ledger.fullest(.seconds(1), policy: 0) <= 1_000)
    }

    @Test("requests that take several slots, and windows in buckets, keep to that too", arguments: [true, false])
    func costs(inBuckets: Bool) throws {
        let policy = Policy(
            name: "hot", limit: 1_000, window: .seconds(1), burst: 1, form: inBuckets ? .buckets : .window, costMax: 4)
        let node = try HotNode([policy])
        node.costs = [4]
        try node.hammer(64, limit: 250)
        #expect(node.sent.count <= 200, "\(node.figures)")
        #expect(node.admitted >= (inBuckets ? 235 : 242))
        #expect(node.ledger.fullest(.seconds(1), policy: 0) <= 1_000)
    }

    @Test("what costs little enough to pass does not wait for what costs too much")
    func cheap() throws {
        let policy = Policy(name: "hot", limit: 1_000, window: .seconds(1), burst: 1, costMax: 4)
        let node = try HotNode([policy])
        node.pace = .seconds(1)
        node.fill(cost: 3)
        node.costs = [4]
        node.ask(0)
        #expect(node.refused == 1)
        node.costs = [2]
        node.ask(0)
        #expect(node.sent.count == 1)
    }

    @Test("a policy that only watches keeps nobody waiting")
    func shadow() throws {
        let policies = [
            Policy(name: "hot", limit: 1_000, window: .seconds(1), burst: 1, mode: .shadow), Self.joined[1],
        ]
        #expect(policies[0].pace == .max)
        let node = try HotNode(policies)
        node.subjects = [hot, SubjectKey(globalOf: 1)]
        node.load(64)
        try node.run(until: at(2_100))
        #expect(node.refused == 0)
        #expect(node.longest <= HotNode.transit * 4)
    }
}
