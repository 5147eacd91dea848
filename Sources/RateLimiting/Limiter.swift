// One worker's limiter: drives a `WindowMachine` on the worker's loop, over one connection to Redis. All transactions of
// a turn leave in one write, at its end.

package import EventLoop
package import Hiredis
package import Identity
import Primitives
package import RedisClient

package final class Limiter: EndOfTurnHandler, RedisRequester, RedisObserver {
    private let context: LimiterContext
    private let loop: Loop
    private let report: (LimiterEvent) -> Void
    private var machine: WindowMachine
    private var connection: RedisConnection?
    private var finder: RedisFinder?
    /// Where the windows are spread over the servers of a cluster: what asks the right one. This limiter then asks nobody.
    private var cluster: LimiterCluster?
    /// Where this limiter is one of a cluster's: who knows where the others are.
    private weak var shards: LimiterCluster?
    /// What the requests of this worker hold; those of a cluster's limiters are all in one.
    let leases: LeaseKeeper
    /// By which requests are decided from now on.
    private var successor: Limiter?
    private var leaseTimer: LoopTimer!
    private var leaseDue = MonotonicTime.distantFuture
    private var deadlineTimer: LoopTimer!
    private var probeTimer: LoopTimer!
    private var deadlineDue = MonotonicTime.distantFuture
    private var probeDue = MonotonicTime.distantFuture
    private var isTurnAsked = false
    /// Whether the windows of a write are all decided in one transaction; those of a cluster's server have a slot each.
    private var sharesTransactions = true
    /// Requests since the last batch, when that was sent, and whether it carried many.
    private var asked = 0
    private var batchAt = MonotonicTime(nanoseconds: 0)
    private var busy = false
    private var isDelivering = false
    private var hasReached = false
    /// Reused.
    private var delivery: [LimitAnswer] = []
    /// On a cluster: whose windows the server that has their slot said are here, and until when that is believed.
    private var arriving: [SubjectKey: MonotonicTime] = [:]

    /// How long `ASKING` is said after an `ASK`. It makes a server that is taking over a slot begin a window that the other
    /// server may still have, so it needs fresh evidence: less than it takes to move a slot away and back again. Without it
    /// the server leads to the other one, which says `ASK` again.
    static let arrivalMax = TimeSpan.milliseconds(50)
    private static let arrivingMax = 1 << 14

    /// Timers fire up to two ticks and a millisecond late; nobody waits longer than the timeout for that.
    private let impatience: TimeSpan

    /// Under load, batches leave no more often than this: what a round trip costs, here and at the server, is then shared
    /// by more requests.
    private static let batchPause = TimeSpan.milliseconds(1)
    /// Where nothing arrives for so long, nobody is waited for: all clients that there are may wait for this batch.
    private static let batchLull = TimeSpan.microseconds(30)
    /// So many requests wait no longer: their share of a round trip is small.
    private static let batchLarge = 32
    /// The longest wait for a batch that is under way: where Redis is far, or slow for a moment, the next one follows
    /// without its answer, since waiting for two round trips could use up the timeout.
    private static let gatheringMax = TimeSpan.milliseconds(2)
    /// Requests of a batch from which on it is load. One client after the other never waits.
    private static let busyFrom = 4

    /// - Parameters:
    ///   - worker: the number of the worker; part of the entries' names.
    ///   - name: shown by `CLIENT LIST`; no spaces.
    ///   - report: called on the loop.
    package convenience init(
        _ context: LimiterContext, topology: RedisTopology, worker: Int, loop: Loop, resolver: Resolver, name: String,
        report: @escaping (LimiterEvent) -> Void
    ) {
        self.init(context, worker: worker, shard: 0, leases: nil, loop: loop, report: report)
        let seed = context.seed &+ UInt64(clamping: worker)
        switch topology {
        case .cluster(let seeds):
            cluster = LimiterCluster(
                context, seeds, worker: worker, leases: leases, loop: loop, resolver: resolver, name: name, seed: seed,
                report: report)
            cluster?.keeper = self
        case .single, .sentinel:
            let finder = RedisFinder(
                topology, key: "", name: "\(name)-sentinel", loop: loop, resolver: resolver, seed: seed)
            self.finder = finder
            connect(
                finder.connection(
                    name: name, silenceMax: Self.silenceMax(context), transactions: true, seed: seed, observer: self))
        }
    }

    /// One of a cluster's, or without an endpoint for slots that nobody holds.
    convenience init(
        _ context: LimiterContext, shardOf shards: LimiterCluster, _ endpoint: RedisEndpoint?, worker: Int, shard: Int,
        loop: Loop, resolver: Resolver, name: String, seed: UInt64, report: @escaping (LimiterEvent) -> Void
    ) {
        self.init(context, worker: worker, shard: shard, leases: shards.leases, loop: loop, report: report)
        self.shards = shards
        sharesTransactions = false
        guard let endpoint else { return }
        machine.connecting(at: loop.now)
        setDeadline(loop.now + context.timeout)
        connect(
            RedisConnection(
                endpoint, name: name, silenceMax: Self.silenceMax(context), loop: loop, resolver: resolver,
                seed: seed, observer: self))
    }

    private init(
        _ context: LimiterContext, worker: Int, shard: Int, leases: LeaseKeeper?, loop: Loop,
        report: @escaping (LimiterEvent) -> Void
    ) {
        let leases = leases ?? LeaseKeeper(context.policies, held: context.held)
        self.leases = leases

        self.context = context
        self.loop = loop
        self.report = report
        impatience = context.timeout - context.patience
        machine = WindowMachine(context, worker: worker, shard: shard, leases: leases)
        deadlineTimer = LoopTimer(loop) { [weak self] in self?.expire() }
        probeTimer = LoopTimer(loop) { [weak self] in self?.probe() }
        leaseTimer = LoopTimer(loop) { [weak self] in self?.renewLeases() }
    }

    private static func silenceMax(_ context: LimiterContext) -> TimeSpan {
        max(RedisConnection.silenceDefault, context.timeout * 2)
    }

    private func connect(_ connection: RedisConnection) {
        self.connection = connection
        connection.start()
    }

    /// Decides a request of a subject at once, or promises to call `limitDecided`.
    package func check(_ subject: SubjectKey, requester: any LimitRequester, token: UInt64) -> LimitDecision {
        if let cluster { return cluster.check(subject, requester: requester, token: token) }
        let decision = machine.ask(subject, requester, token: token, at: loop.now)
        if decision == .pending {
            asked += 1
            setDeadline(loop.now + context.timeout)
            askTurn()
        }
        return decision
    }

    /// Decides a request by several policies, all of whose transactions leave in one write, or promises to call
    /// `limitsDecided`.
    ///
    /// - Parameters:
    ///   - subjects: 1...`PolicyReport.countMax`, each of another policy.
    ///   - costs: what it takes of each; empty for one slot.
    package func check(
        all subjects: [SubjectKey], costs: [UInt16] = [], requester: any LimitRequester, token: UInt64
    ) -> WindowMachine.JointDecision {
        let decision =
            cluster?.check(all: subjects, costs: costs, requester: requester, token: token)
            ?? machine.ask(all: subjects, costs: costs, requester, token: token, at: loop.now)
        switch decision {
        case .decided(let report): if report.lease >= 0 { leasesGiven() }
        case .pending where cluster == nil:
            asked += 1
            setDeadline(loop.now + context.timeout)
            askTurn()
        case .pending: break
        }
        return decision
    }

    /// Whether Redis is asked now.
    package var isAsking: Bool { cluster?.isAsking ?? machine.breaker.mayAsk }

    /// Memory of the line to Redis, and of the tables; on a cluster that of all its servers.
    package var bufferBytes: Int {
        (cluster?.limiters ?? []).reduce(connection?.bufferBytes ?? 0) { $0 + $1.bufferBytes }
    }
    package var tableBytes: Int { (cluster?.limiters ?? []).reduce(machine.bytes) { $0 + $1.tableBytes } }

    /// Ends the connection; who waits is decided by the loss rule.
    package func close() {
        cluster?.close()
        leaseTimer.cancel()
        deadlineTimer.cancel()
        probeTimer.cancel()
        connection?.close()
        finder?.close()
        machine.disconnected(.notConnected, at: loop.now)
        afterwards()
    }

    // MARK: The turn

    private func askTurn() {
        guard !isTurnAsked else { return }
        isTurnAsked = true
        loop.atEndOfTurn(self)
    }

    package func turnEnded() {
        isTurnAsked = false
        machine.releaseHeld(at: loop.now)
        waitForHeld()
        // Those who wait for their time are of the batch that they will go with.
        guard asked > machine.heldCount || machine.wantsToSend, !waitsForMore else { return }
        // Scores and clock samples count from here: the turn may have taken a while.
        loop.updateTime()
        batchAt = loop.now
        busy = asked - machine.heldCount >= Self.busyFrom
        asked = machine.heldCount
        while let transmission = machine.next(at: loop.now) { send(transmission) }
        connection?.endShared()
        afterwards()
    }

    /// Whether the next batch stays for a while; the loop will ask again. Requests gather while a batch is under way, and
    /// under load as long as more arrive: one write and one read for all of them, here and at the server;
    /// docs/decisions/gathering.md has the figures.
    private var waitsForMore: Bool {
        if let connection, connection.outstanding > 0 {
            let due = batchAt + Self.gatheringMax
            if loop.now < due { loop.atEndOfTurn(self, after: due) }
            return loop.now < due
        }
        let due = batchAt + Self.batchPause
        guard busy, asked < Self.batchLarge, loop.now < due, !loop.wasQuiet else { return false }
        loop.atEndOfTurn(self, after: due, orLull: Self.batchLull)
        return true
    }

    /// Comes back for requests that wait until a full window may be asked for.
    private func waitForHeld() {
        if let due = machine.heldUntil { loop.atEndOfTurn(self, after: due) }
    }

    private func send(_ transmission: Transmission) {
        guard let connection else { return }
        if transmission.mayShare, sharesTransactions, case .transaction(let commands) = transmission.form {
            connection.part(commands: commands, self, token: transmission.token) { writer in
                machine.write(transmission, hasTime: true, to: &writer)
            }
            return
        }
        connection.endShared()
        if let shards, let subject = machine.subject(of: transmission), !shards.holds(self, subject),
            arriving[subject].map({ loop.now < $0 }) == true
        {
            connection.asking()
        }
        switch transmission.form {
        case .transaction(let commands):
            connection.transaction(commands: commands, self, token: transmission.token) { writer in
                machine.write(transmission, to: &writer)
            }
        case .command:
            connection.write { machine.write(transmission, to: &$0) }
            connection.sendCommand(self, token: transmission.token)
        }
    }

    func isAboutToAsk(_ subject: SubjectKey) -> Bool { machine.isAboutToAsk(subject) }

    /// What any input to the machine may have led to. Verdicts are delivered outside of it, because who gets one may
    /// ask the next question at once.
    private func afterwards() {
        while machine.hasAnswers, !isDelivering {
            isDelivering = true
            machine.takeAnswers(into: &delivery)
            for answer in delivery {
                if answer.report >= 0, let report = machine.takeReport(answer) {
                    if report.lease >= 0 { leasesGiven() }
                    answer.requester.limitsDecided(token: answer.token, report)
                } else {
                    answer.requester.limitDecided(token: answer.token, verdict: answer.verdict)
                }
            }
            delivery.removeAll(keepingCapacity: true)
            isDelivering = false
        }
        if machine.hasPartAnswers {
            for answer in machine.takePartAnswers() { shards?.decided(answer, by: self) }
        }
        if machine.hasEvents {
            for event in machine.takeEvents() {
                if event == .dataLost { leasesForgotten() }
                report(event)
            }
        }
        if !hasReached, machine.breaker.mayAsk {
            hasReached = true
            report(.reached)
        }
        if machine.takeIsBehind() { leasesForgotten() }
        if machine.wantsToSend { askTurn() }
        waitForHeld()
        if deadlineDue == .distantFuture, let deadline = machine.nextDeadline { setDeadline(deadline) }
        let due = loop.now + machine.probePause
        if due < probeDue {
            probeDue = due
            probeTimer.schedule(at: due)
        }
    }

    private func setDeadline(_ deadline: MonotonicTime) {
        // What is handed over has waited elsewhere already.
        guard deadline < deadlineDue else { return }
        deadlineDue = deadline
        deadlineTimer.schedule(at: deadline - impatience)
    }

    private func expire() {
        deadlineDue = .distantFuture
        machine.expire(through: loop.now + impatience, at: loop.now)
        afterwards()
    }

    // MARK: Probes

    private func probe() {
        loop.updateTime()
        if let transmission = machine.probe(at: loop.now) { send(transmission) }
        probeDue = .distantFuture
        afterwards()
    }

    // MARK: Redis

    package func redisReplied(_ reply: Reply, token: UInt64) {
        machine.replied(token, reply, at: loop.now)
        if let reason = machine.takeMistrust() { connection?.distrust(reason) }
        // The batch is answered: who has gathered meanwhile is next.
        if connection?.outstanding == 0 { askTurn() }
        afterwards()
    }

    package func redisFailed(_ failure: RedisFailure, token: UInt64) {
        if let shards, let connection, case .refused(let text) = failure,
            let redirection = Redirection(text, from: connection.endpoint.location)
        {
            if let handover = machine.redirected(token, at: loop.now) {
                shards.redirected(redirection, handover, from: self)
            } else {
                shards.redirected(redirection, nil, from: self)
            }
            afterwards()
            return
        }
        machine.failed(token, failure, at: loop.now)
        afterwards()
    }

    package func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) {
        machine.connected(sample)
        leasesForgotten()
        probe()
        shards?.connected()
    }

    package func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) {
        machine.disconnected(failure, at: loop.now)
        shards?.lost(self)
        afterwards()
    }

    package func redisSubscribed(_ connection: RedisConnection) {}
    package func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {}
}

// MARK: Leases

extension Limiter {
    /// A request has ended that had leases.
    ///
    /// - Parameter lease: the first of them, from its report.
    package func release(_ lease: Int32) {
        leases.end(lease) { lease in
            if let cluster { cluster.owner(of: lease.subject).release(lease) } else { release(lease) }
            if lease.twin >= 0 { successor?.release(lease.twin) }
        }
    }

    package var holdsLeases: Bool { leases.count > 0 }

    /// Whether Redis does not know yet all that was decided, or may yet forget it.
    package var isOwing: Bool {
        machine.isOwing(at: loop.now) || cluster?.limiters.contains { $0.isOwing } ?? false
    }

    /// A request was let in that holds leases; it may run for hours.
    func leasesGiven() {
        keepLeases()
        handOverLeases()
    }

    /// Requests are decided by another limiter from now on. It counts those that run by this one's word, until they end,
    /// where its limit is another.
    package func handOver(to next: Limiter) {
        successor = next
        handOverLeases()
    }

    private func handOverLeases() {
        guard let successor, leases.count > 0 else { return }
        leases.handOver { successor.adopt($0, from: context) }
        successor.leasesGiven()
    }

    private func adopt(_ subject: SubjectKey, from before: LimiterContext) -> Int32 {
        guard let subject = context.counterpart(of: subject, in: before) else { return -1 }
        return (cluster?.owner(of: subject) ?? self).adopt(subject)
    }

    private func adopt(_ subject: SubjectKey) -> Int32 {
        let lease = machine.adopt(subject, at: loop.now)
        if machine.wantsToSend { askTurn() }
        return lease
    }

    func keepLeases() {
        guard let due = leases.nextDue, due < leaseDue else { return }
        leaseDue = due
        leaseTimer.schedule(at: due)
    }

    private func renewLeases() {
        leaseDue = .distantFuture
        loop.updateTime()
        while let (place, lease) = leases.takeDue(at: loop.now) {
            if let cluster { cluster.owner(of: lease.subject).renew(place, lease) } else { renew(place, lease) }
        }
        keepLeases()
    }

    /// Redis may have forgotten them, or they have not been renewed for a while.
    private func leasesForgotten() {
        guard leases.count > 0 else { return }
        leases.hurry(at: loop.now)
        if let shards { shards.keepLeases() } else { keepLeases() }
    }
}

// MARK: As one of a cluster's

extension Limiter {
    /// Where its server is; `nil` for the one that asks nobody.
    var location: RedisEndpoint.Location? { connection?.endpoint.location }

    /// A slot of its server, for questions of its own.
    func setProbeTag(_ tag: String) { machine.setProbeTag(tag) }

    /// Decides a request's part at once, or promises to tell the cluster's limiter.
    func check(part subject: SubjectKey, cost: UInt16, token: UInt64) -> WindowMachine.PartDecision {
        let decision = machine.ask(part: subject, cost: cost, token: token, at: loop.now)
        if decision == .pending {
            asked += 1
            setDeadline(loop.now + context.timeout)
            askTurn()
        }
        return decision
    }

    /// What became of the whole.
    func finish(_ part: Int32, isKept: Bool, lease: inout Int32) {
        machine.finish(part, isKept: isKept, lease: &lease, at: loop.now)
        if machine.wantsToSend { askTurn() }
    }

    func release(_ lease: LeaseKeeper.Lease) {
        machine.release(lease, at: loop.now)
        if machine.wantsToSend { askTurn() }
    }

    func renew(_ place: Int32, _ lease: LeaseKeeper.Lease) {
        machine.renew(place, lease, at: loop.now)
        if machine.wantsToSend { askTurn() }
    }

    /// - Parameter isAsked: whether the server that has the slot said just now that the subject's window is here.
    func take(_ handover: Handover, isAsked: Bool = false) {
        if isAsked {
            if arriving.count >= Self.arrivingMax { arriving.removeAll() }
            arriving[handover.subject] = loop.now + Self.arrivalMax
        }
        machine.take(handover, at: loop.now)
        if let first = machine.nextDeadline { setDeadline(first) }
        askTurn()
        afterwards()
    }

    func takeMisplaced(_ isOurs: (SubjectKey) -> Bool) -> [Handover] { machine.takeMisplaced(isOurs) }
}
