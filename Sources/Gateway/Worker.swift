// One event-loop thread: its listener, its clients, its backend connections, its Redis connection. Nothing on it is
// shared but atomics and immutable snapshots, which arrive through its mailbox.

import Balancing
import Configuration
import EventLoop
import HTTP1
import Identity
import LinuxIO
import Primitives
import RateLimiting
import Synchronization

/// What other threads tell a worker.
enum WorkerMessage: Sendable {
    /// The backends of a service that may be used have changed.
    case balancer(service: Int, BalancerSnapshot)
    /// Whether the request that asked may try the backend.
    case trial(service: Int, backend: Int, granted: Bool)
    /// Another worker lacks places or descriptors, and this one may have some to spare.
    case makeRoom(of: Scarcity)
    /// Finish what is in flight and accept nothing more.
    case drain
    case stop
}

final class Worker: ListenerHandler, WakeHandler {
    let node: NodeContext
    let loop: Loop
    let index: Int
    var count: Int { node.workerCount }
    let mailbox: Mailbox<WorkerMessage>
    let control: Mailbox<ControlMessage>

    /// Shared scratch: bytes stay here within one call only, so an idle connection holds no buffer.
    var input = ByteBuffer(capacity: DataPathLimits.readBytes)
    var output = ByteBuffer(capacity: DataPathLimits.readBytes)
    var surplus = ByteBuffer(capacity: 16)
    /// The storage for the fields of heads.
    var requestFields = HeaderFields()
    var responseFields = HeaderFields()

    var balancers: [BalancerSnapshot]
    private var trialAsks: TrialAsks
    private(set) var pools: [[BackendPool]] = []
    /// By service.
    var retryBudgets: [RetryBudget]
    private var retryNotes: [String: RepeatedNote] = [:]
    private(set) var limiter: Limiter?
    let tokenBuckets: TokenBucketStore?
    /// Whom the policies count of the request at hand, and what they said of the one that is being refused. Reused.
    var subjects: [SubjectKey] = []
    var report = PolicyReport()
    private(set) var draining = false
    private(set) var listeners: [Listener] = []
    private(set) var clients: [ClientConnection] = []
    private(set) var pressure: Pressure!
    let tunnels = Tunnels()
    private var accessLog: AccessLog?
    private var dateLine: [UInt8] = []
    /// When the next second of the wall clock begins.
    private var dateEnd = MonotonicTime(nanoseconds: 0)

    init(
        node: NodeContext, index: Int, loop: Loop, mailbox: Mailbox<WorkerMessage>, control: Mailbox<ControlMessage>,
        balancers: [BalancerSnapshot]
    ) {
        self.node = node
        self.index = index
        self.loop = loop
        self.mailbox = mailbox
        self.control = control
        self.balancers = balancers
        trialAsks = TrialAsks(services: node.services.count)
        retryBudgets = node.services.map { service in
            let retries = service.settings.retries
            // The share of a worker is that of its own requests; the minimum is shared out.
            let minimum = (retries.minimum + node.workerCount - 1) / max(1, node.workerCount)
            return RetryBudget(percent: retries.budgetPercent, minimum: minimum)
        }
        switch node.limiterSetup {
        case .memory(let store): tokenBuckets = store
        case .none, .redis: tokenBuckets = nil
        }
        loop.addWakeHandler(self)
        pressure = Pressure(self)
        pools = node.services.map { service in
            service.backends.map { BackendPool($0, service: service, worker: self) }
        }
        limiter = node.makeLimiter(loop, index) { event in control.post(.limiter(worker: index, event)) }
        if let sink = node.accessLogSink { accessLog = AccessLog(sink, format: node.accessLogFormat, loop: loop) }
    }

    func listen(on sockets: [ListeningSocket]) throws(SystemError) {
        for socket in sockets { listeners.append(try loop.listen(on: socket, handler: self)) }
    }

    // MARK: Connections

    func takePlace(_ listener: Listener, certain: Bool) -> Bool { pressure.takePlace(certain: certain) }
    func returnPlace(_ listener: Listener) { node.connections.release() }

    func accepted(_ connection: consuming Accepted, by listener: Listener) {
        let peer = connection.peer.ip.unmapped
        let trusted = node.trusted.contains(peer)
        // A proxy's own connection carries many clients and counts for none of them.
        let counted = trusted ? nil : peer
        if let counted, !node.connections.enter(counted) {
            node.connections.release()
            pressure.refused(counted)
            return
        }
        Socket.setNoDelay(connection.descriptor)
        let client: ClientConnection
        do throws(SystemError) {
            client = try ClientConnection(connection, peer: peer, trusted: trusted, worker: self)
        } catch {
            if let counted { node.connections.leave(counted) }
            node.connections.release()
            return
        }
        client.countedClient = counted
        client.place = clients.count
        clients.append(client)
    }

    func acceptPaused(_ listener: Listener, _ error: SystemError) { pressure.acceptFailed(error) }

    func closed(_ client: ClientConnection) {
        node.connections.release()
        if let counted = client.countedClient { node.connections.leave(counted) }
        let last = clients.count - 1
        let place = client.place
        guard place <= last, clients[place] === client else { return }
        clients.swapAt(place, last)
        clients[place].place = place
        clients.removeLast()
        pressure.connectionClosed()
        if draining, clients.isEmpty { finishDraining() }
    }

    // MARK: Messages

    func woken() {
        for message in mailbox.take() {
            switch message {
            case .balancer(let service, let snapshot):
                balancers[service] = snapshot
                trialAsks.changed(service)
                // A node that drains ends them anyway.
                if !draining {
                    tunnels.viewChanged(node.services[service], at: loop.now) { snapshot.isAvailable($0) }
                }
            case .trial(let service, let backend, let granted): trialDecided(service, backend, granted)
            case .makeRoom(let scarcity): pressure.makeRoom(of: scarcity)
            case .drain: drain()
            case .stop: loop.stop()
            }
        }
    }

    private func drain() {
        guard !draining else { return }
        draining = true
        for listener in listeners { listener.drain() }
        listeners.removeAll()
        for pool in pools.joined() { pool.closeIdle() }
        drainTunnels()
        for client in clients where client.isIdle { client.close() }
        if clients.isEmpty { finishDraining() }
    }

    func drainTunnels() { tunnels.drain(within: node.drain.timeout, at: loop.now) }

    private func finishDraining() { control.post(.drained(worker: index)) }

    // MARK: Evidence and log

    /// A request's outcome speaks against its backend.
    func report(_ service: Service, _ index: Int, _ fault: BackendFault) {
        let backend = service.backends[index]
        if service.countsAnswers { backend.failures.wrappingAdd(1, ordering: .relaxed) }
        backend.consecutiveFailures.wrappingAdd(1, ordering: .relaxed)
        // Beyond the threshold more of the same is no news, until the control loop has thought anew.
        guard backend.toldFailures.wrappingAdd(1, ordering: .relaxed).newValue <= service.toldFailuresMax else {
            return
        }
        control.post(.trafficFailed(service: service.index, backend: index, fault))
    }

    func reportSuccess(_ service: Service, _ index: Int) {
        let backend = service.backends[index]
        if service.countsAnswers { backend.answers.wrappingAdd(1, ordering: .relaxed) }
        guard backend.consecutiveFailures.load(ordering: .relaxed) > 0 else { return }
        backend.consecutiveFailures.store(0, ordering: .relaxed)
        backend.toldFailures.store(0, ordering: .relaxed)
        control.post(.trafficRecovered(service: service.index, backend: index))
    }

    /// The Date line of this second, for answers that have none.
    func date() -> [UInt8] {
        if loop.now >= dateEnd {
            let microseconds = SystemClock.wallMicroseconds()
            var line = ByteBuffer()
            line.appendDate(seconds: microseconds / 1_000_000)
            dateLine = line.array
            dateEnd = loop.now + .microseconds(1_000_000 - microseconds % 1_000_000)
        }
        return dateLine
    }

    /// A request failed that would have gone to another backend, had others not done so before it.
    func retryDenied(_ service: Service) {
        service.retriesDenied.wrappingAdd(1, ordering: .relaxed)
        let name = service.settings.name
        let note = retryNotes[name] ?? RepeatedNote("the retry budget is used up", self, details: ["service": name])
        retryNotes[name] = note
        note.happened()
    }

    // MARK: Trials

    /// A half-open backend that a request of this service may ask for now.
    func trialToAsk(_ service: Service) -> Int? {
        guard let first = balancers[service.index].trials.first, trialAsks.mayAsk(service.index, at: loop.now) else {
            return nil
        }
        return first
    }

    func askForTrial(_ ask: TrialAsk, _ service: Service) {
        trialAsks.ask(ask, service.index)
        control.post(.trialWanted(service: service.index, backend: ask.backend, worker: index))
    }

    private func trialDecided(_ service: Int, _ backend: Int, _ granted: Bool) {
        guard let ask = trialAsks.answered(service, granted: granted, at: loop.now), ask.backend == backend,
            let client = ask.client
        else {
            if granted { endTrial(service, backend, succeeded: false, status: 0) }
            return
        }
        client.trialDecided(ask, granted: granted)
    }

    func endTrial(_ service: Int, _ backend: Int, succeeded: Bool, status: Int) {
        control.post(.trialEnded(service: service, backend: backend, succeeded: succeeded, status: status))
    }

    func count(_ client: ClientConnection) { accessLog?.write(client, now: loop.now) }
}
