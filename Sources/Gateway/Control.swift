// The control loop: health, membership, name resolution and the admin listener, on a thread of its own, so that none of
// it ever stands in a request's way. What it finds out reaches the workers as immutable snapshots.

import Balancing
import Configuration
package import EventLoop
import Health
import LinuxIO
import Logging
package import Membership
import Primitives
import RateLimiting
package import RedisClient
import Synchronization

/// How the cluster is reached, for those who ask.
package enum ClusterState: String, Sendable {
    /// No Redis is configured: this node is complete by itself.
    case alone
    case reached
    case lost
}

package final class Control: WakeHandler, ClusterLinkOwner {
    package let loop: Loop
    package let nodeID: NodeID
    package var clusterState: ClusterState
    /// Whether clients should be sent here, and why not.
    package var readiness = Readiness.starting
    package var isReady: Bool { readiness == .serving }

    /// The configuration in force.
    var generation: Generation
    var node: NodeContext { generation.context }
    let mailbox: Mailbox<ControlMessage>
    let workers: [Mailbox<WorkerMessage>]
    let resolver: Resolver
    let logger: Logger
    var membership: MembershipView
    var health: HealthMachine
    var link: ClusterLink?
    private var healthTimer: LoopTimer!
    private var resolveTimer: LoopTimer!
    private(set) var shareTimer: LoopTimer!
    private(set) var slowStartTimer: LoopTimer!
    var failureShares: FailureShares
    var slowStarts = SlowStarts()
    var slowStartDue: MonotonicTime?
    var breakers = BreakerMachine()
    var breakerActions: [BreakerAction] = []
    private(set) var breakerTimer: LoopTimer!
    /// Requests in flight elsewhere, where a service counts them.
    var loads: LoadTable
    var loadTeller = LoadTeller()
    private(set) var loadTimer: LoopTimer!
    package let boot: BootID
    /// Workers whose requests wait for the word on a trial, in the order of their asking.
    var trialAskers: [BackendKey: [Int]] = [:]
    /// Who has it may write through the admin listener.
    package var adminToken: String? { generation.configuration.gateway.adminToken }
    var actions: [HealthAction] = []
    private var performing = false
    var drained: Set<Int> = []
    /// Workers whose limits do not ask Redis now: at first all. And how often one has come to that.
    package internal(set) var limiterLost: Set<Int> = []
    package private(set) var breakerOpenings = 0
    /// Those of them that have said so.
    private var limiterLossSaid: Set<Int> = []
    var limitWatch = LimitWatch()
    /// What stands between this node and Redis, until it is gone: of limits, of the cluster, and of its news.
    package internal(set) var limiterFailure: RedisFailure?
    package internal(set) var clusterFailure: RedisFailure?
    package internal(set) var newsFailure: RedisFailure?
    package internal(set) var movesFailure: RedisFailure?
    /// What the log has named of it. Reasons may alternate with each attempt: each is named once a minute.
    var limiterLossTold = ToldCauses()
    var clusterLossTold = ToldCauses()
    var keysTold = ToldLately<KeyFailure.Kind>()
    /// What stood between this node and Redis, counted.
    package let failures: RedisFailureCounts
    package var limitStatus: LimitStatus { generation.limitStatus }
    /// What became of the configurations so far.
    package let board: ConfigurationBoard
    /// A reload that the workers are told of.
    var succession: (order: Succession, missing: Set<Int>)?
    /// Who waits for the answer to a question for a reload.
    var answerWaiters: [(ticket: Int, tell: () -> Void)] = []
    /// While the next configuration is taken in, and the workers do not know of it: an order of backends by its numbers
    /// would be taken for one by theirs. They get all orders with it.
    var isBeginning = false
    let seed: UInt64
    /// Where clients find this node.
    var listening: SocketAddress
    var adminStart: (@Sendable (Control, ListeningSocket) throws -> () -> Void)?
    var adminEnd: (() -> Void)?
    /// The one before, until no worker goes by it any more.
    var retired: Generation?
    var closing: LoopTimer?
    var watch: FileWatch?
    /// Where the cluster's configuration is followed.
    var follower: ConfigurationFollower?
    let configurationPath: String?
    let eventLog: EventLog?
    /// Connections of operators that made room for others.
    package var adminConnectionsShed = 0
    var ending = Ending()
    package let startedAt = ProcessStatus.startMicroseconds()
    /// Equal where the configuration is, but for what is each node's own.
    package var sharedName: String { generation.sharedName }
    package let history = TrafficHistory()
    var historyTimer: LoopTimer?
    package let events: EventFeed
    /// Called when the loop has ended.
    package var whenStopped: (() -> Void)?

    init(
        _ generation: Generation, setup: ControlSetup, loop: Loop, mailbox: Mailbox<ControlMessage>,
        workers: [Mailbox<WorkerMessage>]
    ) {
        self.generation = generation
        let node = generation.context
        self.loop = loop
        self.mailbox = mailbox
        self.workers = workers
        nodeID = setup.id
        resolver = setup.resolver
        logger = setup.logger
        failureShares = FailureShares(node.services)
        loads = LoadTable(node: setup.id)
        boot = setup.info.boot
        board = setup.board
        configurationPath = setup.configurationPath
        eventLog = setup.eventLog
        seed = setup.seed
        listening = setup.listening
        failures = setup.failures
        events = setup.events
        membership = MembershipView(id: setup.id, info: setup.info)
        clusterState = generation.redis == nil ? .alone : .lost
        let moment = HealthMoment(
            monotonic: loop.now, wall: UnixTime(milliseconds: SystemClock.wallMicroseconds() / 1_000))
        health = HealthMachine(
            node: setup.id, boot: setup.info.boot, services: node.services.map { Self.watched($0) }, seed: setup.seed,
            now: moment)
        loop.addWakeHandler(self)
        limitersUnheard()
        watchLogs()
        healthTimer = LoopTimer(loop) { [weak self] in self?.tick() }
        resolveTimer = LoopTimer(loop) { [weak self] in self?.resolveAgain() }
        shareTimer = LoopTimer(loop) { [weak self] in self?.lookAtShares() }
        slowStartTimer = LoopTimer(loop) { [weak self] in self?.grow() }
        breakerTimer = LoopTimer(loop) { [weak self] in self?.breakerTick() }
        watchBreakers()
        lookAtShares()
        loadTimer = LoopTimer(loop) { [weak self] in self?.tellLoad() }
        joinCluster()
        resolveTimer.schedule(after: DataPathLimits.resolveInterval)
        watchFile()
        follow()
        announceConfiguration()
        tick()
    }

    static func watched(_ service: Service) -> WatchedService {
        WatchedService(
            name: service.settings.name, settings: HealthSettings(service.settings.health),
            urls: service.backends.map(\.url))
    }

    var moment: HealthMoment {
        HealthMoment(monotonic: loop.now, wall: UnixTime(milliseconds: SystemClock.wallMicroseconds() / 1_000))
    }

    /// The workers take connections. The admin listener begins only now where the process before this one answers at it
    /// until then.
    func becomeReady(admin: ListeningSocket?) {
        if let admin { startAdmin(on: admin) }
        if readiness == .starting { readiness = .serving }
    }

    // MARK: Messages from workers

    package func woken() {
        for message in mailbox.take() {
            switch message {
            case .trafficFailed(let key, let fault): trafficFailed(key, fault)
            case .trafficRecovered(let key):
                health.trafficRecovered(key)
                breakerSucceeded(key)
            case .trialWanted(let key, let worker): trialWanted(key, worker: worker)
            case .trialEnded(let key, let outcome, let evidence): trialEnded(key, outcome, evidence)
            case .serving(let admin, let then):
                becomeReady(admin: admin)
                then()
            case .reload(let succession): begin(succession)
            case .reloaded(let worker): workerReloaded(worker)
            case .reloadAnswered: tellAnswered()
            case .configurationChecked(let version, let errors): follower?.checked(version, errors)
            case .configurationAdopted(let version, let errors): follower?.adopted(version, errors)
            case .limiter(let worker, let event): limiterEvent(worker, event)
            case .connectionsScarce(let worker, let reason):
                logger.warning(
                    "connections are scarce: the idle are closed, new ones may have to wait",
                    metadata: ["worker": "\(worker)", "reason": "\(reason)"])
            case .connectionsSuffice(let worker):
                logger.notice(
                    "connections suffice again", metadata: ["worker": "\(worker)", "shed": "\(connections.shed)"])
            case .makeRoom(let worker, let scarcity):
                for (index, other) in workers.enumerated() where index != worker { other.post(.makeRoom(of: scarcity)) }
            case .note(let message, let details):
                logger.warning("\(message)", metadata: .init(uniqueKeysWithValues: details.map { ($0, "\($1)") }))
            case .news(let message, let details):
                logger.info("\(message)", metadata: .init(uniqueKeysWithValues: details.map { ($0, "\($1)") }))
            case .drained(let worker): workerDrained(worker)
            case .stopped(let cutOff): workerStopped(cutOff)
            case .drain: drain()
            case .changeHands: ending.sharesName(until: loop.now + Ending.handsTime)
            case .handOver: handOver()
            case .upgradeAnswered: tellUpgraded()
            case .stop: stop()
            }
        }
    }

    private func trafficFailed(_ key: BackendKey, _ fault: BackendFault) {
        let failure: HealthFailure =
            switch fault {
            case .refused: .connection("connection refused")
            case .reset: .connection("connection closed before the end of the answer")
            case .connectTimeout, .responseTimeout: .timeout
            case .malformed: .malformedAnswer
            case .serverError(let status): .status(status)
            }
        health.trafficFailed(key, failure, at: moment, into: &actions)
        perform()
        breakerFailed(key, fault, failure)
    }

    private func limiterEvent(_ worker: Int, _ event: LimiterEvent) {
        switch event {
        case .lost(let failure):
            // Workers lose the same Redis at the same time: one line says it.
            if limiterFailure?.cause != failure.cause {
                limiterFailure = failure
                if limiterLossTold.mayTell(failure.cause, at: loop.now) {
                    logger.warning(
                        "Redis lost: the loss rule decides limits",
                        metadata: ["reason": "\(failure)", "remedy": "\(remedy(failure))", "worker": "\(worker)"])
                }
            }
            limiterLost.insert(worker)
            if limiterLossSaid.insert(worker).inserted { breakerOpenings += 1 }
        case .restored, .reached:
            limiterLost.remove(worker)
            limiterLossSaid.remove(worker)
            guard limiterLost.isEmpty, limiterFailure != nil else { return }
            limiterFailure = nil
            limiterLossTold = ToldCauses()
            logger.notice("Redis is back: limits hold over the cluster again")
        case .dataLost:
            logger.warning(
                "Redis has lost its data: what this node admitted in the last window is added back",
                metadata: ["worker": "\(worker)"])
        case .anomaly(let reason):
            logger.error("a limiter's answer from Redis was discarded", metadata: ["reason": "\(reason)"])
        case .keyFailed(let failure): limitKeyFailed(failure)
        }
    }

    /// No worker has said yet whether Redis decides its limits.
    func limitersUnheard() {
        limiterLost = generation.limiterContext == nil ? [] : Set(workers.indices)
        limiterLossSaid = []
        limiterFailure = nil
        limiterLossTold = ToldCauses()
    }

    // MARK: Health

    private func tick() {
        health.tick(at: moment, into: &actions)
        perform()
    }

    /// Does what the machine asks for. What that leads to at once is taken up in the same run.
    func perform() {
        guard !performing else { return }
        performing = true
        while !actions.isEmpty {
            let now = actions
            actions.removeAll(keepingCapacity: true)
            for action in now { perform(action) }
        }
        performing = false
        let next = health.nextDeadline
        if next < .distantFuture { healthTimer.schedule(at: max(next, loop.now)) }
    }

    private func perform(_ action: HealthAction) {
        switch action {
        case .probe(let key, let attempt, let settings): probe(key, attempt, settings)
        case .publish(let news): link?.publish(news)
        case .report(let report): link?.publish(report)
        case .readWords: link?.readWords()
        case .writeWord(let key, let word): link?.write(word, of: key)
        case .remove(let service, let fields): link?.remove(service: service, fields: fields)
        case .readSnapshot(let service): link?.readSnapshot(service: service)
        case .availabilityChanged(let key, let isAvailable, _): availabilityChanged(key, isAvailable)
        case .log(let event): log(event)
        }
    }

    private func log(_ event: HealthEvent) {
        switch event {
        case .opinion(let key, _):
            // It has thought anew: what fails from here on is news again.
            find(key)?.toldFailures.store(0, ordering: .relaxed)
            logger.debug("\(event)")
        case .condition(_, let condition, _): logger.log(level: condition.isAvailable ? .notice : .warning, "\(event)")
        case .said: logger.notice("\(event)")
        case .isolated, .ignored: logger.warning("\(event)")
        }
    }

    func find(_ key: BackendKey) -> Backend? {
        node.services.first { $0.settings.name == key.service }?.backends.first { $0.url == key.url }
    }

    private func probe(_ key: BackendKey, _ attempt: UInt64, _ settings: HealthSettings) {
        guard let backend = find(key) else { return }
        // The loop's streams keep the probe alive until it has finished.
        Probe(backend, settings, loop: loop) { [weak self] result in
            guard let self else { return }
            health.probeFinished(key, attempt: attempt, result, at: moment, into: &actions)
            perform()
        }.start()
    }

    private func availabilityChanged(_ key: BackendKey, _ isAvailable: Bool) {
        guard let service = node.services.first(where: { $0.settings.name == key.service }) else { return }
        slowStarts.end(key)
        if isAvailable {
            find(key)?.toldFailures.store(0, ordering: .relaxed)
            if service.settings.health.slowStart > .zero { slowStarts.begin(key, at: loop.now) }
            if service.settings.health.active { breakerReachedAgain(key) }
        }
        postBalancer(service)
    }

    // MARK: Cluster

    func clusterReached() {
        if clusterState == .reached {
            logger.notice("what the nodes share is on another server of the Redis Cluster now")
        } else {
            logger.notice("joined the cluster", metadata: ["node": "\(nodeID)"])
        }
        clusterState = .reached
        clusterFailure = nil
        clusterLossTold = ToldCauses()
        breakersJoined(true)
        health.redisRestored(at: moment, into: &actions)
        perform()
        follower?.reached()
    }

    func clusterLost(_ failure: RedisFailure) {
        failures.count(failure.cause)
        if clusterFailure?.cause != failure.cause {
            clusterFailure = failure
            if clusterLossTold.mayTell(failure.cause, at: loop.now) {
                logger.warning(
                    "cluster out of reach", metadata: ["reason": "\(failure)", "remedy": "\(remedy(failure))"])
            }
        }
        clusterState = .lost
        breakersJoined(false)
        loadsLost()
        health.redisLost(at: moment, into: &actions)
        perform()
    }

    func heartbeatAnswered(_ reply: HeartbeatReply) {
        var events: [MembershipEvent] = []
        let before = membership.liveNodes
        // A Redis that has lost its data lists nobody, and nobody has gone.
        if reply.previousBoot != nil { follower?.listed(Set(reply.lastSeen.map(\.id.text))) }
        membership.announce(reach: link?.reach)
        membership.received(reply, at: loop.now, into: &events)
        log(events)
        tellLimiters()
        if before != membership.liveNodes {
            health.liveNodesChanged(membership.liveNodes, at: moment, into: &actions)
            perform()
        }
        askSilent()
        if let (bound, nodes) = membership.prune(reply, at: loop.now) { link?.prune(before: bound, nodes) }
    }

    func healthNews(_ news: HealthNews) {
        health.news(news, at: moment, into: &actions)
        perform()
    }

    func probeReported(_ report: ProbeReport) {
        health.heard(report, at: moment, into: &actions)
        perform()
    }

    func healthIgnored(_ error: HealthFormatError) {
        health.ignored(error, at: moment, into: &actions)
        perform()
    }

    func healthSnapshot(service: String, _ fields: [(field: String, value: [UInt8])]) {
        health.snapshot(service: service, fields, at: moment, into: &actions)
        perform()
    }

    func healthSnapshotRefused(service: String) {
        health.snapshotRefused(service: service, at: moment, into: &actions)
        perform()
    }

    func clusterAnomaly(_ text: String, _ cause: RedisCause) {
        failures.count(cause)
        logger.error("\(text)")
    }

    func healthSnapshotFailed() {
        health.snapshotFailed(at: moment)
        perform()
    }

    // MARK: Names

    private func resolveAgain() {
        resolveTimer.schedule(after: DataPathLimits.resolveInterval)
        for backend in node.services.flatMap(\.backends) where IPAddress(backend.host) == nil {
            backend.resolve(by: resolver, logger)
        }
    }

    // MARK: For the admin listener

    package var connections: ConnectionStatus { node.connections.status }
    package var members: [Member] { membership.members.filter(\.isAlive) }
    package var isAlone: Bool { link == nil }

    /// This node as a member, for when there is no cluster to ask.
    package var ownAddress: String { membership.info.address }
    package var ownConfiguration: String? { membership.info.configuration }
}
