// The health of all backends as one node has it: its own monitors, what the other nodes say, and what follows for the
// requests of this node. A value: inputs are methods, what has to happen in the world comes out as actions.
//
// Sharing over Redis is at most once on the channel, so nothing depends on a message that arrives. The hashes hold the
// truth: they are read after subscribing, and again every few seconds. Each node looks after its own fields: where a
// field does not say what its author thinks (lost write, emptied server, an earlier run), the author writes it again.
// While Redis is unreachable the node goes on with the view that it had, and probes for itself: its own evidence counts
// beside the others' last words, which expire as they would if their authors fell silent. What it judges down by itself
// is down then: there is nobody to ask.
//
// An earlier run's verdict under the same node id stays in force until this run has probed the backend itself;
// otherwise each restart of a node would bring dead backends back for a moment.

package import Membership
package import Primitives

package struct HealthMachine: Sendable {
    /// How often the hashes are read again; bounds how long a lost message can matter.
    package static let rereadInterval = TimeSpan.seconds(10)
    /// When a hash could not be read.
    private static let rereadAfterFailure = TimeSpan.seconds(1)
    /// After Redis has come back, when everybody has had the time to write again what he means.
    private static let rereadAfterReturn = TimeSpan.seconds(1)
    /// A verdict against a backend is written again this often, so that the others know that it still holds.
    package static let renewInterval = TimeSpan.seconds(20)
    /// So long after its last renewal it counts no more: two renewals may be lost.
    package static let verdictLifetime = TimeSpan.seconds(60)
    /// How often is looked for what is to be renewed or has expired.
    static let sweepInterval = TimeSpan.seconds(2)
    /// Nonsense from Redis is reported at most once in this time.
    private static let ignoredLogInterval = TimeSpan.seconds(10)
    /// Fields of removed backends that wait for Redis to come back. A forgotten one is found by whoever reads its hash.
    private static let owedRemovalsMax = 1024

    struct Backend: Sendable {
        let key: BackendKey
        let keyHash: UInt64
        var monitor: BackendMonitor
        var verdicts = VerdictTable()
        /// What this run has said last; `nil` while it has said nothing, which means up.
        var own: HealthVerdict?
        /// When `own`, if it says down, is to be written again.
        var renewDue = MonotonicTime.distantFuture
        /// The table holds what an earlier run of this node said, until this run knows better.
        var isInherited = false
        /// What `verdicts` comes to among the nodes whose votes count.
        var votes = Votes(live: 1)
        var condition: BackendCondition
        var agreed = AgreedState.up
        /// What an operator has said last.
        var word: OperatorWord?
        /// As listed, and since when.
        var state = BackendStatus.State.up
        var since: UnixTime
        var changes: UInt64 = 0

        /// Whether anybody judges it down, whose vote counts or not.
        var hasWordsThatAge: Bool { own?.state == .down || verdicts.hasDown }
    }

    struct Service: Sendable {
        var name: String
        var settings: HealthSettings
        /// Of `settings`.
        var check: UInt64
        var backends: [Backend]
        /// The hash has been read since Redis was reached, so the others' verdicts are known.
        var isShared = false
        /// Redis has been lost, and the hash has not been read since.
        var isCutOff = false
        /// When the hash was last asked for.
        var readRequested = MonotonicTime(nanoseconds: .min)
        /// Since when fields of nodes that are not alive have been seen in the hash.
        var absentSince: [NodeID: MonotonicTime] = [:]
    }

    package let node: NodeID
    package let boot: BootID
    var services: [Service] = []
    var index: [BackendKey: (service: Int, backend: Int)] = [:]
    private(set) var liveNodes: [NodeID]
    /// Of the living nodes, for the turns of probing.
    private(set) var liveHashes: [UInt64]
    let nodeHash: UInt64
    /// Whose votes do not count, because they have lost their way to everything.
    var isolated: Set<NodeID> = []
    private(set) var isJoined = false
    private(set) var hasLeft = false
    private var nextReread = MonotonicTime.distantFuture
    var nextSweep = MonotonicTime.distantFuture
    private var owedRemovals: [BackendKey] = []
    var sequence: UInt64 = 0
    private var attempts: UInt64 = 0
    var random: SplitMix64
    private var ignored = 0
    private var nextIgnoredLog = MonotonicTime(nanoseconds: .min)

    /// Starts alone, with all backends up and their first probes due within half a second.
    package init(node: NodeID, boot: BootID, services: [WatchedService], seed: UInt64, now: HealthMoment) {
        self.node = node
        self.boot = boot
        liveNodes = [node]
        nodeHash = stableHash(node.text)
        liveHashes = [nodeHash]
        random = SplitMix64(seed: seed)
        var actions: [HealthAction] = []
        reconfigure(services, at: now, into: &actions)
    }

    // MARK: Time

    /// When `tick` is to be called at the latest.
    package var nextDeadline: MonotonicTime {
        var next = min(nextReread, nextSweep)
        for service in services {
            for backend in service.backends { next = min(next, backend.monitor.nextDeadline) }
        }
        return next
    }

    package mutating func tick(at now: HealthMoment, into actions: inout [HealthAction]) {
        for s in services.indices {
            for b in services[s].backends.indices {
                let change = services[s].backends[b].monitor.tick(at: now.monotonic, random: &random)
                took(change, s, b, now, &actions)
                startProbeIfDue(s, b, now, &actions)
            }
        }
        if nextSweep <= now.monotonic { sweep(now, &actions) }
        if nextReread <= now.monotonic { readAll(now, &actions) }
    }

    mutating func startProbeIfDue(_ s: Int, _ b: Int, _ now: HealthMoment, _ actions: inout [HealthAction]) {
        guard services[s].backends[b].monitor.probeIsDue(at: now.monotonic) else { return }
        attempts &+= 1
        services[s].backends[b].monitor.probeStarted(attempt: attempts, at: now.monotonic)
        actions.append(.probe(services[s].backends[b].key, attempt: attempts, services[s].settings))
    }

    // MARK: This node's own evidence

    package mutating func probeFinished(
        _ key: BackendKey, attempt: UInt64, _ result: ProbeResult, at now: HealthMoment,
        into actions: inout [HealthAction]
    ) {
        guard let (s, b) = index[key] else { return }
        let change = services[s].backends[b].monitor.probeFinished(
            attempt: attempt, result, at: now.monotonic, random: &random)
        took(change, s, b, now, &actions)
        if services[s].backends[b].isInherited { speak(s, b, now, &actions) }
        if let record = services[s].backends[b].monitor.takeReport() {
            if isJoined, services[s].isShared, !hasLeft {
                actions.append(
                    .report(ProbeReport(backend: key, node: node, check: services[s].check, record: record)))
            }
            place(s, b, now)
        }
        startProbeIfDue(s, b, now, &actions)
    }

    /// Another node's probe has ended.
    package mutating func heard(_ report: ProbeReport, at now: HealthMoment, into actions: inout [HealthAction]) {
        guard isJoined, report.node != node, let (s, b) = index[report.backend], report.check == services[s].check
        else { return }
        if services[s].backends[b].monitor.heard(report.record, at: now.monotonic, random: &random) {
            place(s, b, now)
            startProbeIfDue(s, b, now, &actions)
        }
    }

    /// A request that went to the backend has failed. Failures beyond `settings.failures` in a row need not be told.
    package mutating func trafficFailed(
        _ key: BackendKey, _ failure: HealthFailure, at now: HealthMoment, into actions: inout [HealthAction]
    ) {
        guard let (s, b) = index[key] else { return }
        let change = services[s].backends[b].monitor.requestFailed(failure, at: now.monotonic, random: &random)
        took(change, s, b, now, &actions)
        startProbeIfDue(s, b, now, &actions)
    }

    /// Too large a share of the requests to the backend has failed, as the text says.
    package mutating func trafficShareFailed(
        _ key: BackendKey, _ text: String, at now: HealthMoment, into actions: inout [HealthAction]
    ) {
        guard let (s, b) = index[key] else { return }
        let change = services[s].backends[b].monitor.requestsFailed(share: text, at: now.monotonic)
        took(change, s, b, now, &actions)
        startProbeIfDue(s, b, now, &actions)
    }

    /// A request has succeeded after some that failed. Further successes need not be told.
    package mutating func trafficRecovered(_ key: BackendKey) {
        guard let (s, b) = index[key] else { return }
        services[s].backends[b].monitor.requestSucceeded()
    }

    private mutating func took(
        _ change: OpinionChange, _ s: Int, _ b: Int, _ now: HealthMoment, _ actions: inout [HealthAction]
    ) {
        switch change {
        case .unchanged: return
        case .changed: speak(s, b, now, &actions)
        }
    }

    /// Makes a verdict of what the monitor thinks, tells it, and acts on it.
    private mutating func speak(_ s: Int, _ b: Int, _ now: HealthMoment, _ actions: inout [HealthAction]) {
        sequence &+= 1
        let backend = services[s].backends[b]
        let (state, kind): (VerdictState, EvidenceKind) =
            switch backend.monitor.standing {
            case .up: (.up, backend.own?.kind ?? .probe)
            case .downByProbe: (.down, .probe)
            case .downByTraffic: (.down, .traffic)
            }
        let verdict = HealthVerdict(
            state: state, kind: kind, boot: boot, sequence: sequence, since: now.wall, check: services[s].check,
            evidence: backend.monitor.evidence)
        services[s].backends[b].own = verdict
        services[s].backends[b].renewDue = state == .down ? now.monotonic + Self.renewInterval : .distantFuture
        services[s].backends[b].isInherited = false
        _ = services[s].backends[b].verdicts.merge(verdict, of: node, at: now.monotonic)
        actions.append(.log(.opinion(backend.key, verdict)))
        publish(s, b, &actions)
        evaluate(s, heard: b, now, &actions)
    }

    func publish(_ s: Int, _ b: Int, _ actions: inout [HealthAction]) {
        guard isJoined, services[s].isShared, !hasLeft, let verdict = services[s].backends[b].own else { return }
        actions.append(.publish(HealthNews(backend: services[s].backends[b].key, node: node, verdict: verdict)))
    }

    // MARK: What the others say

    /// A message on the channel.
    package mutating func news(_ news: HealthNews, at now: HealthMoment, into actions: inout [HealthAction]) {
        guard isJoined, news.node != node, let (s, b) = index[news.backend] else { return }
        took(
            services[s].backends[b].verdicts.merge(news.verdict, of: news.node, at: now.monotonic), s, b, news.verdict,
            now)
        if services[s].isShared { evaluate(s, heard: b, now, &actions) }
        startProbeIfDue(s, b, now, &actions)
    }

    /// A message or field that could not be understood.
    package mutating func ignored(
        _ error: HealthFormatError, at now: HealthMoment, into actions: inout [HealthAction]
    ) {
        ignored += 1
        guard nextIgnoredLog <= now.monotonic else { return }
        nextIgnoredLog = now.monotonic + Self.ignoredLogInterval
        actions.append(.log(.ignored(count: ignored, last: error)))
        ignored = 0
    }

    /// Looks for itself where it is news that the backend is down.
    mutating func took(
        _ outcome: MergeOutcome, _ s: Int, _ b: Int, _ verdict: HealthVerdict, _ now: HealthMoment
    ) {
        switch outcome {
        case .old, .tooMany: return
        case .applied(let before):
            guard verdict.check ?? services[s].check == services[s].check else { return }
            switch (before, verdict.state) {
            case (.up, .down): services[s].backends[b].monitor.confirm(at: now.monotonic)
            case (.down, .up): services[s].backends[b].monitor.recheck(at: now.monotonic)
            case (.up, .up), (.down, .down): return
            }
        }
    }

    /// A hash cannot be read, and will not be for a while: it holds more than any cluster writes, or is no hash. What is
    /// told on the channel has to do.
    package mutating func snapshotRefused(
        service name: String, at now: HealthMoment, into actions: inout [HealthAction]
    ) {
        guard isJoined, let s = services.firstIndex(where: { $0.name == name }), !services[s].isShared else { return }
        services[s].isShared = true
        services[s].isCutOff = false
        for b in services[s].backends.indices { renew(s, b, now, &actions) }
        evaluate(s, now, &actions)
    }

    /// A hash could not be read although Redis answers.
    package mutating func snapshotFailed(at now: HealthMoment) {
        nextReread = min(nextReread, now.monotonic + Self.rereadAfterFailure)
    }

    /// The living nodes have changed, as membership sees them. What a node that is gone has said goes with it; what one
    /// that has come said before, perhaps in an earlier run, is in the hashes.
    package mutating func liveNodesChanged(
        _ nodes: [NodeID], at now: HealthMoment, into actions: inout [HealthAction]
    ) {
        let before = Set(liveNodes)
        let after = Set(nodes).union([node])
        liveNodes = after.sorted()
        liveHashes = liveNodes.map { stableHash($0.text) }
        let gone = before.subtracting(after)
        for s in services.indices {
            for b in services[s].backends.indices {
                for other in gone { services[s].backends[b].verdicts.forget(other) }
            }
            evaluate(s, now, &actions)
        }
        if isJoined, !after.isSubset(of: before) { readAll(now, &actions) }
    }

    // MARK: Redis comes and goes

    /// Redis is reached and the channel is subscribed: what is published from now on will be heard.
    package mutating func redisRestored(at now: HealthMoment, into actions: inout [HealthAction]) {
        isJoined = true
        for (service, backends) in Dictionary(grouping: owedRemovals, by: \.service).sorted(by: { $0.key < $1.key }) {
            let fields = backends.map { HealthKeys.field(url: $0.url, node: node) }
            actions.append(.remove(service: service, fields: fields.sorted()))
        }
        owedRemovals = []
        for s in services.indices {
            for b in services[s].backends.indices where services[s].backends[b].own?.state == .down {
                services[s].backends[b].renewDue = now.monotonic
            }
        }
        readAll(now, &actions)
        nextReread = now.monotonic + Self.rereadAfterReturn
    }

    package mutating func redisLost(at now: HealthMoment, into actions: inout [HealthAction]) {
        let wasJoined = isJoined
        isJoined = false
        nextReread = .distantFuture
        for s in services.indices {
            services[s].absentSince = [:]
            services[s].isCutOff = true
            for b in services[s].backends.indices {
                // From here on this node sees for itself, beginning with what the others condemned. It is told again as
                // long as Redis refuses.
                if wasJoined, services[s].backends[b].votes.down > 0 {
                    services[s].backends[b].monitor.confirm(at: now.monotonic)
                }
            }
            evaluate(s, now, &actions)
            for b in services[s].backends.indices { startProbeIfDue(s, b, now, &actions) }
        }
    }

    /// What is published is not heard: the hashes are read, as often as this is called.
    package mutating func reread(at now: HealthMoment, into actions: inout [HealthAction]) {
        if isJoined { readAll(now, &actions) }
    }

    private mutating func readAll(_ now: HealthMoment, _ actions: inout [HealthAction]) {
        let tenth = Self.rereadInterval.nanoseconds / 10
        let jitter = TimeSpan.nanoseconds(Int64.random(in: -tenth...tenth, using: &random))
        nextReread = now.monotonic + Self.rereadInterval + jitter
        for s in services.indices { read(s, now, &actions) }
        actions.append(.readWords)
    }

    private mutating func read(_ s: Int, _ now: HealthMoment, _ actions: inout [HealthAction]) {
        services[s].readRequested = now.monotonic
        actions.append(.readSnapshot(service: services[s].name))
    }

    /// Takes this node's verdicts out of Redis, because it leaves for good.
    package mutating func leave(into actions: inout [HealthAction]) {
        guard isJoined, !hasLeft else { return }
        hasLeft = true
        for service in services {
            let spoken = service.backends.filter { $0.own != nil || $0.isInherited }
            if spoken.isEmpty { continue }
            let fields = spoken.map { HealthKeys.field(url: $0.key.url, node: node) }
            actions.append(.remove(service: service.name, fields: fields.sorted()))
        }
    }

    // MARK: Configuration

    /// Goes on with another set of services. What is known about backends that stay is kept.
    package mutating func reconfigure(
        _ watched: [WatchedService], at now: HealthMoment, into actions: inout [HealthAction]
    ) {
        let old = services
        let oldIndex = index
        services = []
        index = [:]
        var unread: Set<String> = []
        for new in watched where !services.contains(where: { $0.name == new.name }) {
            let before = old.first { $0.name == new.name }
            let check = new.settings.check
            var service = before ?? Service(name: new.name, settings: new.settings, check: check, backends: [])
            if before == nil { service.isCutOff = !isJoined && old.contains(where: \.isCutOff) }
            let isSameCheck = service.check == check
            service.settings = new.settings
            service.check = check
            service.backends = []
            for url in new.urls {
                let key = BackendKey(service: new.name, url: url)
                guard index[key] == nil else { continue }
                index[key] = (services.count, service.backends.count)
                // What another check has found says nothing of this one, except where there are no probes any more.
                if let (s, b) = oldIndex[key], isSameCheck || !new.settings.active {
                    var backend = old[s].backends[b]
                    backend.monitor.reconfigure(new.settings, at: now.monotonic, random: &random)
                    service.backends.append(backend)
                } else {
                    unread.insert(new.name)
                    let monitor = BackendMonitor(settings: new.settings, now: now.monotonic, random: &random)
                    service.backends.append(
                        Backend(
                            key: key, keyHash: stableHash("\(key)"), monitor: monitor,
                            condition: .usable(down: 0, live: liveNodes.count),
                            since: now.wall))
                }
            }
            services.append(service)
        }
        if isJoined { for s in services.indices where unread.contains(services[s].name) { read(s, now, &actions) } }
        for backend in old.flatMap(\.backends) where index[backend.key] == nil {
            if backend.own != nil || backend.isInherited { removeField(backend.key, &actions) }
        }
        for s in services.indices { evaluate(s, now, &actions) }
    }

    private mutating func removeField(_ key: BackendKey, _ actions: inout [HealthAction]) {
        if isJoined {
            actions.append(.remove(service: key.service, fields: [HealthKeys.field(url: key.url, node: node)]))
        } else if owedRemovals.count < Self.owedRemovalsMax {
            owedRemovals.append(key)
        }
    }
}
