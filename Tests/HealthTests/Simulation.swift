// N nodes, M backends and a model of Redis in one thread and one queue of events, all from one seed. Messages are lost,
// late, repeated and out of order while there are faults; writes are lost; nodes crash, are cut off from Redis and come
// back; backends die, or answer probes and fail requests; paths break between one node and one backend. Invariants are checked all the time by whoever runs it.

import Health
import Membership
import Primitives

final class Simulation {
    enum BackendState { case alive, dead, failingRequests }

    struct SimulatedBackend {
        let key: BackendKey
        var state = BackendState.alive
        /// When `state` began.
        var since = TimeSpan.zero
        /// The nodes whose path to it is broken, and when one that was has healed.
        var unreachable: Set<NodeID> = []
        var healed: [NodeID: TimeSpan] = [:]
    }

    final class SimulatedNode {
        let id: NodeID
        var machine: HealthMachine?
        var isConnected = false
        var runningSince = TimeSpan.zero
        var connectedSince = TimeSpan.zero
        /// Last heartbeat that reached Redis.
        var lastBeat: TimeSpan?
        /// Counts connections and runs, so that what belongs to an earlier one is dropped.
        var epoch = 0
        var available: Set<BackendKey> = []
        var failedInARow: [BackendKey: Int] = [:]
        var tickAt: TimeSpan?
        /// When it last had no way to any backend.
        var cutOffEnded: TimeSpan?
        /// This machine's monotonic clock has an origin of its own, and its wall clock is wrong.
        let origin: TimeSpan
        var wallError: TimeSpan

        init(_ id: NodeID, origin: TimeSpan, wallError: TimeSpan) {
            self.id = id
            self.origin = origin
            self.wallError = wallError
        }

        func moment(at time: TimeSpan) -> HealthMoment {
            let exact = HealthTests.moment(time)
            return HealthMoment(
                monotonic: exact.monotonic + origin,
                wall: UnixTime(milliseconds: exact.wall.milliseconds + wallError.milliseconds))
        }

        func time(of moment: MonotonicTime) -> TimeSpan { moment - HealthTests.moment(origin).monotonic }
    }

    private struct Event {
        var time: TimeSpan
        var order: Int
        var body: () -> Void
    }

    var random: SplitMix64
    private(set) var now = TimeSpan.zero
    private var queue: [Event] = []
    private var ordered = 0
    var nodes: [SimulatedNode] = []
    var backends: [SimulatedBackend]
    private let watched: [WatchedService]
    private var hashes: [String: [String: String]] = [:]
    /// Probes of each backend so far.
    private(set) var probesOf: [BackendKey: Int] = [:]
    private var boots: UInt64 = 0

    /// A node that reaches no backend at all, and when that last changed.
    private(set) var cutOff: SimulatedNode?
    private(set) var cutOffChanged = TimeSpan(nanoseconds: .min / 2)
    /// Whether the network loses, delays and repeats.
    var isFaulty = true
    /// Of a hundred probes of a dead backend, how many time out instead of being refused.
    var silentDeaths = 30
    private(set) var probes = 0
    private(set) var messages = 0
    /// A digest of everything that happened, to compare two runs.
    private(set) var trace: UInt64 = 0

    static let heartbeat = TimeSpan.milliseconds(500)

    init(seed: UInt64, nodes count: Int, services: [WatchedService]) {
        random = SplitMix64(seed: seed)
        watched = services
        backends = services.flatMap { service in
            service.urls.map { SimulatedBackend(key: BackendKey(service: service.name, url: $0)) }
        }
        nodes = (0..<count).map {
            SimulatedNode(
                node("node-\($0)"), origin: span(0...100_000_000), wallError: span(-7_200_000...7_200_000))
        }
    }

    // MARK: Time

    func at(_ time: TimeSpan, _ body: @escaping () -> Void) {
        let event = Event(time: max(now, time), order: ordered, body: body)
        ordered += 1
        // Kept sorted, the next event last; events are mostly near.
        var index = queue.count
        while index > 0, queue[index - 1].time <= event.time { index -= 1 }
        queue.insert(event, at: index)
    }

    func after(_ span: TimeSpan, _ body: @escaping () -> Void) { at(now + span, body) }

    func run(until end: TimeSpan) {
        while let next = queue.last, next.time <= end {
            queue.removeLast()
            now = next.time
            next.body()
        }
        now = end
    }

    func note(_ text: String) { trace = stableHash("\(trace) \(now) \(text)") }

    func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

    func span(_ milliseconds: ClosedRange<Int64>) -> TimeSpan {
        .milliseconds(Int64.random(in: milliseconds, using: &random))
    }

    // MARK: Nodes

    func start(_ node: SimulatedNode) {
        boots += 1
        node.epoch += 1
        node.isConnected = false
        node.runningSince = now
        node.machine = HealthMachine(
            node: node.id, boot: BootID(boots), services: watched, seed: random.next(),
            now: node.moment(at: now))
        node.available = Set(backends.map(\.key))
        node.failedInARow = [:]
        node.tickAt = nil
        schedule(node)
        connect(node)
    }

    func crash(_ node: SimulatedNode) {
        node.epoch += 1
        node.machine = nil
        node.isConnected = false
    }

    func connect(_ node: SimulatedNode) {
        guard node.machine != nil, !node.isConnected else { return }
        node.isConnected = true
        node.connectedSince = now
        node.epoch += 1
        let epoch = node.epoch
        give(node) { $0.redisRestored(at: $1, into: &$2) }
        beat(node, epoch)
    }

    func cut(_ node: SimulatedNode) {
        guard node.machine != nil, node.isConnected else { return }
        node.isConnected = false
        node.epoch += 1
        give(node) { $0.redisLost(at: $1, into: &$2) }
    }

    /// A heartbeat: what `MembershipView` makes of it is tested elsewhere; here it is an oracle with its delay.
    private func beat(_ node: SimulatedNode, _ epoch: Int) {
        guard node.epoch == epoch, node.isConnected else { return }
        node.lastBeat = now
        let known = node.machine?.listing.first.map { $0.votes.map(\.node) } ?? []
        // After a pause nobody's silence is held against him for a while.
        let isGrace = now - node.connectedSince < Self.heartbeat * 3
        let live = nodes.filter { other in
            other.lastBeat.map { now - $0 < Self.heartbeat * 3 } ?? false || isGrace && known.contains(other.id)
        }.map(\.id)
        if known != live {
            give(node) { $0.liveNodesChanged(live, at: $1, into: &$2) }
        }
        after(Self.heartbeat) { self.beat(node, epoch) }
    }

    func give(
        _ node: SimulatedNode, _ input: (inout HealthMachine, HealthMoment, inout [HealthAction]) -> Void
    ) {
        var actions: [HealthAction] = []
        guard var machine = node.machine else { return }
        node.machine = nil
        input(&machine, node.moment(at: now), &actions)
        node.machine = machine
        for action in actions { obey(node, action) }
        schedule(node)
    }

    private func schedule(_ node: SimulatedNode) {
        guard let deadline = node.machine?.nextDeadline, deadline < .distantFuture else { return }
        let due = max(now, node.time(of: deadline))
        if let already = node.tickAt, already <= due { return }
        node.tickAt = due
        let machineBoot = node.machine?.boot
        at(due) {
            guard node.machine?.boot == machineBoot, node.tickAt == due else { return }
            node.tickAt = nil
            self.give(node) { $0.tick(at: $1, into: &$2) }
        }
    }

    private func obey(_ node: SimulatedNode, _ action: HealthAction) {
        switch action {
        case .probe(let key, let attempt, let settings): probe(node, key, attempt, settings)
        case .publish(let news):
            toServer(node) {
                let hash = HealthKeys.hash(service: news.backend.service)
                let field = HealthKeys.field(url: news.backend.url, node: news.node)
                self.hashes[hash, default: [:]][field] = news.verdict.json
                self.broadcast(news.json) { node, json in
                    guard let news = try? HealthNews(json: json) else { return }
                    self.give(node) { $0.news(news, at: $1, into: &$2) }
                }
            }
        case .report(let report):
            toServer(node) {
                let hash = HealthKeys.probes(service: report.backend.service)
                self.hashes[hash, default: [:]][report.backend.url] = report.json
                self.broadcast(report.json) { self.hear($0, $1) }
            }
        case .remove(let service, let fields):
            toServer(node) {
                for field in fields { self.hashes[HealthKeys.hash(service: service), default: [:]][field] = nil }
            }
        case .readSnapshot(let service):
            let epoch = node.epoch
            toServer(node) {
                let fields = self.hashes[HealthKeys.hash(service: service), default: [:]].sorted { $0.key < $1.key }
                    .map { (field: $0.key, value: Array($0.value.utf8)) }
                let reports = self.hashes[HealthKeys.probes(service: service), default: [:]].sorted { $0.key < $1.key }
                self.after(self.span(0...(self.isFaulty ? 300 : 2))) {
                    guard node.epoch == epoch else { return }
                    self.give(node) { $0.snapshot(service: service, fields, at: $1, into: &$2) }
                    for (_, json) in reports { self.hear(node, Array(json.utf8)) }
                }
            }
        case .readWords, .writeWord: break
        case .availabilityChanged(let key, let isAvailable, let condition):
            note("\(node.id) \(key) \(isAvailable) \(condition)")
            if isAvailable { node.available.insert(key) } else { node.available.remove(key) }
        case .log(let event): note("\(node.id) \(event)")
        }
    }

    // MARK: Redis

    /// A command on its way. With faults it may be lost, together with the connection's word that it was.
    private func toServer(_ node: SimulatedNode, _ body: @escaping () -> Void) {
        guard node.isConnected, !(isFaulty && chance(10)) else { return }
        let epoch = node.epoch
        after(span(0...(isFaulty ? 50 : 1))) {
            // What was on its way when the connection broke may or may not have arrived.
            if node.epoch == epoch || self.chance(50) { body() }
        }
    }

    private func hear(_ node: SimulatedNode, _ json: [UInt8]) {
        guard let report = try? ProbeReport(json: json) else { return }
        give(node) { $0.heard(report, at: $1, into: &$2) }
    }

    private func broadcast(_ json: String, _ body: @escaping (SimulatedNode, [UInt8]) -> Void) {
        for node in nodes where node.isConnected {
            let epoch = node.epoch
            if isFaulty, chance(20) { continue }
            for _ in 0..<(isFaulty && chance(20) ? 2 : 1) {
                after(span(0...(isFaulty ? 500 : 2))) {
                    guard node.epoch == epoch else { return }
                    self.messages += 1
                    body(node, Array(json.utf8))
                }
            }
        }
    }

    func emptyServer() { hashes = [:] }

    // MARK: Backends

    func set(_ index: Int, _ state: BackendState) {
        guard backends[index].state != state else { return }
        note("\(backends[index].key) \(state)")
        backends[index].state = state
        backends[index].since = now
    }

    func cutOff(_ node: SimulatedNode?) {
        guard cutOff !== node else { return }
        note("cut off: \(node.map { "\($0.id)" } ?? "nobody")")
        cutOff?.cutOffEnded = now
        cutOff = node
        cutOffChanged = now
    }

    /// Breaks one node's path to one backend, or makes it whole.
    func setPath(of node: SimulatedNode, to index: Int, broken: Bool) {
        guard backends[index].unreachable.contains(node.id) != broken else { return }
        note("\(node.id) to \(backends[index].key): \(broken ? "broken" : "whole")")
        if broken {
            backends[index].unreachable.insert(node.id)
        } else {
            backends[index].unreachable.remove(node.id)
            backends[index].healed[node.id] = now
        }
    }

    private func reaches(_ node: SimulatedNode, _ backend: SimulatedBackend) -> Bool {
        backend.state != .dead && cutOff !== node && !backend.unreachable.contains(node.id)
    }

    /// The nodes that may still judge a backend by a path that is broken, or was so lately.
    func misled(by index: Int, lately span: TimeSpan) -> Set<NodeID> {
        var misled = backends[index].unreachable
        for (node, time) in backends[index].healed where now - time < span { misled.insert(node) }
        if let cutOff { misled.insert(cutOff.id) }
        for node in nodes { if let time = node.cutOffEnded, now - time < span { misled.insert(node.id) } }
        return misled
    }

    private func probe(_ node: SimulatedNode, _ key: BackendKey, _ attempt: UInt64, _ settings: HealthSettings) {
        guard let backend = backends.first(where: { $0.key == key }), let boot = node.machine?.boot else { return }
        probes += 1
        probesOf[key, default: 0] += 1
        // What the backend is when the probe arrives counts; some deaths refuse and some are silent.
        let silent = !reaches(node, backend) && chance(silentDeaths)
        after(silent ? settings.timeout : span(1...20)) {
            guard node.machine?.boot == boot else { return }
            let result: ProbeResult =
                silent ? .failed(.timeout) : self.reaches(node, backend) ? .succeeded : .failed(refused)
            self.give(node) { $0.probeFinished(key, attempt: attempt, result, at: $1, into: &$2) }
        }
    }

    /// Requests of one node to all backends that it uses, every so often, told as a worker tells them.
    func traffic(_ node: SimulatedNode, every interval: ClosedRange<Int64>) {
        for backend in backends where node.machine != nil && node.available.contains(backend.key) {
            if backend.state == .alive, reaches(node, backend) {
                if node.failedInARow.removeValue(forKey: backend.key) != nil {
                    give(node) { machine, _, _ in machine.trafficRecovered(backend.key) }
                }
            } else {
                let failure: HealthFailure = reaches(node, backend) ? .status(500) : refused
                node.failedInARow[backend.key, default: 0] += 1
                give(node) { $0.trafficFailed(backend.key, failure, at: $1, into: &$2) }
            }
        }
        after(span(interval)) { self.traffic(node, every: interval) }
    }
}
