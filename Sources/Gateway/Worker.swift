// One event-loop thread: its listener, its clients, its backend connections, its Redis connection. Nothing on it is
// shared but atomics and immutable snapshots, which arrive through its mailbox.

import Balancing
import Configuration
import Credentials
import EventLoop
import HTTP1
import Health
import Identity
import LinuxIO
import Primitives
import RateLimiting
import Synchronization
import Tracing

/// What other threads tell a worker.
enum WorkerMessage: Sendable {
    /// The backends of a service that may be used have changed.
    case balancer(service: Int, BalancerSnapshot)
    /// Whether the request that asked may try the backend.
    case trial(BackendKey, granted: Bool)
    /// A credential was looked at.
    case credential(CredentialAnswer)
    /// Keys were revoked or renewed: what is remembered of credentials does not hold any more.
    case forgetCredentials(CredentialChange)
    /// From here on another configuration counts.
    case reload(WorkerSuccession)
    /// Another process of this node has listened there.
    case endListening([ListeningSocket])
    /// Another worker lacks places or descriptors, and this one may have some to spare.
    case makeRoom(of: Scarcity)
    /// Finish what is in flight and accept nothing more.
    /// Or leave new connections to the process that has taken over.
    case drain(handingOver: Bool)
    /// Somebody wants to know what memory it holds.
    case weigh
    case stop
}

final class Worker: ListenerHandler, WakeHandler {
    /// The configuration in force, swapped whole between two turns.
    var node: NodeContext
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

    private var retryNotes: [String: RepeatedNote] = [:]
    /// By the numbers of the services.
    var lanes: [Lane] = []
    var pools: [[BackendPool]] { lanes.map(\.pools) }
    /// With a request that waits for the word on its trial; after a reload perhaps those of before.
    var asking: [Lane] = []
    var limiter: Limiter?
    var tokenBuckets: TokenBucketStore?
    var limiterHearing: Hearing?
    /// Until it listens.
    var beginning: Beginning?
    /// The next configuration, while its limiter is on its way.
    var upcoming: Upcoming?
    /// Limiters of before that owe answers.
    var retiring: [RetiringLimiter] = []
    /// What requests hold that run, where limits are in memory.
    var heldHere: LeaseKeeper?
    /// Counts the limiters of this worker, and tells whose a lease is.
    var limiterEra = 0
    /// `nil` where nobody is asked who they are.
    var callers: Callers?
    /// Whom the policies count of the request at hand, and what they said of the one that is being refused. Reused.
    var subjects: [SubjectKey] = []
    /// What the request takes of each; empty where all policies count single requests.
    var costs: [UInt16] = []
    var report = PolicyReport()
    var draining = false
    var ending: WorkerDrain?
    /// Whether what ends now ends with the worker.
    var isCuttingOff = false
    var listeners: [Listener] = []
    private(set) var clients: [ClientConnection] = []
    private(set) var pressure: Pressure!
    let tunnels = Tunnels()
    let gzips = GzipPool()
    /// Names for requests.
    var ids = IDSource(seeds: SystemClock.random64(), SystemClock.random64())
    private(set) lazy var memorySweep = MemorySweep(self)
    var accessLog: AccessLog?
    /// `nil` where spans go nowhere.
    var spanLog: SpanLog?
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
        callers = makeCallers()
        loop.addWakeHandler(self)
        pressure = Pressure(self)
        lanes = zip(node.services, balancers).map { service, balancer in
            Lane(service, of: node, balancer: balancer, before: nil, worker: self)
        }
        startLimiter()
        accessLog = AccessLog(of: self)
        spanLog = SpanLog(of: self)
    }

    func listen(on sockets: [ListeningSocket]) throws(SystemError) {
        for socket in sockets { listeners.append(try loop.listen(on: socket, handler: self)) }
    }

    // MARK: Limits in memory

    func takeHere(_ store: TokenBucketStore) -> PolicyReport {
        store.take(all: subjects, costs: costs, leases: heldHere, at: SystemClock.monotonic())
    }

    /// A request has ended that counted as one that runs.
    func release(_ lease: Lease) {
        if lease.era == limiterEra {
            if let limiter { limiter.release(lease.place) } else { heldHere?.end(lease.place) { _ in } }
        } else {
            // It was admitted by the limits of another configuration.
            retiring.first { $0.era == lease.era }?.limiter.release(lease.place)
        }
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
        node.traffic.connectionAccepted(worker: index)
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
        if draining { finishDraining() }
    }

    // MARK: Messages

    func woken() {
        for message in mailbox.take() { take(message) }
    }

    func take(_ message: WorkerMessage) {
        switch message {
        case .balancer(let index, let snapshot):
            guard upcoming == nil else {
                upcoming?.messages.append(message)
                break
            }
            // An order of another configuration's backends is none of this one's.
            guard lanes.indices.contains(index), lanes[index].state === snapshot.state else { break }
            let lane = lanes[index]
            lane.balancer = snapshot
            lane.trials.changed()
            // A node that drains ends them anyway.
            if !draining { tunnels.viewChanged(lane.service, at: loop.now) { snapshot.isAvailable($0) } }
        case .trial(let key, let granted): trialDecided(key, granted)
        case .credential(let answer): callers?.answered(answer, at: loop.now)
        case .forgetCredentials(let which): callers?.forget(which)
        case .reload(let succession): reload(succession)
        case .endListening(let sockets): endListening(sockets)
        case .makeRoom(let scarcity): pressure.makeRoom(of: scarcity)
        case .drain(let handingOver):
            listenNow()
            drain(handingOver: handingOver)
        case .weigh: memorySweep.begin()
        case .stop:
            control.post(.stopped(cutOff: cutOff()))
            loop.stop()
        }
    }

    // MARK: Evidence and log

    /// A request's outcome speaks against its backend. `isCounted`: the status of its answer has done so already.
    func report(_ service: Service, _ index: Int, _ fault: BackendFault, isCounted: Bool = false) {
        let backend = service.backends[index]
        backend.traffic.failed(fault, worker: self.index)
        if isCounted { return }
        if service.countsAnswers { backend.failures.wrappingAdd(1, ordering: .relaxed) }
        backend.consecutiveFailures.wrappingAdd(1, ordering: .relaxed)
        // Beyond the threshold more of the same is no news, until the control loop has thought anew.
        guard backend.toldFailures.wrappingAdd(1, ordering: .relaxed).newValue <= service.toldFailuresMax else {
            return
        }
        control.post(.trafficFailed(backend.key, fault))
    }

    /// A backend has begun its answer to a request that was sent to it at `sentAt`. A status that speaks against it does
    /// so at once; the others have to be followed by the rest of the answer (`backendSucceeded`), unless it is here.
    func backendAnswered(_ lane: Lane, _ index: Int, status: Int, isWhole: Bool, since sentAt: MonotonicTime) {
        let backend = lane.service.backends[index]
        backend.traffic.answered(status, worker: self.index)
        lane.traffic.backendAnswered(after: loop.now - sentAt, worker: self.index)
        if BackendFault.isBlamed(for: status) {
            report(lane.service, index, .serverError(status))
        } else if isWhole {
            succeeded(lane.service, backend)
        }
    }

    /// A backend has done its part of an exchange whose answer was not whole at once.
    func backendSucceeded(_ service: Service, _ index: Int) { succeeded(service, service.backends[index]) }

    private func succeeded(_ service: Service, _ backend: Backend) {
        if service.countsAnswers { backend.answers.wrappingAdd(1, ordering: .relaxed) }
        guard backend.consecutiveFailures.load(ordering: .relaxed) > 0 else { return }
        backend.consecutiveFailures.store(0, ordering: .relaxed)
        backend.toldFailures.store(0, ordering: .relaxed)
        control.post(.trafficRecovered(backend.key))
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
    func trialToAsk(_ lane: Lane) -> Int? {
        guard let first = lane.balancer.trials.first, lane.trials.mayAsk(at: loop.now) else { return nil }
        return first
    }

    func askForTrial(_ ask: TrialAsk, _ lane: Lane) {
        lane.trials.ask(ask)
        asking.append(lane)
        control.post(.trialWanted(lane.service.backends[ask.backend].key, worker: index))
    }

    private func trialDecided(_ key: BackendKey, _ granted: Bool) {
        let place = asking.firstIndex { lane in
            lane.trials.asked.map { lane.service.backends[$0.backend].key == key } ?? false
        }
        guard let place, let ask = asking.remove(at: place).trials.answered(granted: granted, at: loop.now),
            let client = ask.client
        else {
            // It has gone meanwhile, and nobody has tried.
            if granted { endTrial(key, .void) }
            return
        }
        client.trialDecided(ask, key, granted: granted)
    }

    func endTrial(_ key: BackendKey, _ outcome: TrialOutcome, _ evidence: String = "") {
        control.post(.trialEnded(key, outcome, evidence: evidence))
    }

    func count(_ client: ClientConnection) {
        if let lane = client.lane {
            lane.count(client, worker: index, at: loop.now)
        } else {
            node.traffic.unrouted.count(client, worker: index, at: loop.now)
        }
        accessLog?.write(client, now: loop.now)
        if let spanLog, let marks = client.marks { spanLog.write(client, marks) }
    }
}
