// One worker's limiter: it asks Redis, all requests of a subject in a turn together, and never makes anyone wait longer
// than `timeout`.
//
// While a transaction of a subject is under way, further requests of that subject gather and go together in the next
// one: the wait is at most one more round trip, and a hot key gets cheaper as it gets hotter.
//
// A transaction whose TIME is later than the score it gave (a slow link, a stalled server) is confirmed before anyone
// is admitted by it; docs/decisions/late-transactions.md says why.

package import EventLoop
package import Hiredis
package import Identity
import LinuxIO
package import Primitives
package import RedisClient
package import Synchronization

/// Who waits for a decision. Called on the loop.
package protocol LimitRequester: AnyObject {
    func limitDecided(token: UInt64, verdict: Verdict)
}

package enum LimitDecision: Sendable {
    case decided(Verdict)
    /// `limitDecided` will be called.
    case pending
}

/// What happens to the limiter as a whole, for the log.
package enum LimiterEvent: Sendable {
    /// Redis is not asked any more; the loss rule decides.
    case lost(String)
    case restored
    /// An answer that cannot be believed.
    case anomaly(String)
}

/// What the limiters of a node's workers share.
package final class LimiterContext: Sendable {
    package let policy: Policy
    let key: WindowKey
    let lossRule: LossRule
    let timeout: TimeSpan
    let memory: AdmissionMemory
    /// Nodes alive as last known, at least 1.
    package let liveNodes = Atomic<Int>(1)
    let boot: UInt64
    let seed: UInt64

    package init(_ policy: Policy, lossRule: LossRule, timeout: TimeSpan, boot: UInt64, seed: UInt64) {
        self.policy = policy
        key = WindowKey(policy)
        self.lossRule = lossRule
        self.timeout = timeout
        self.boot = boot
        self.seed = seed
        memory = AdmissionMemory(window: policy.window, seed: seed)
    }

    /// This node's part of the limit while Redis is gone.
    var share: Int {
        let nodes = max(1, liveNodes.load(ordering: .relaxed))
        return (policy.limit - 1) / nodes + 1
    }
}

package final class Limiter: EndOfTurnHandler, RedisRequester, RedisObserver {
    /// One request that waits.
    private struct Waiter {
        var requester: (any LimitRequester)?
        var token: UInt64
        var subject: SubjectKey
        var deadline: MonotonicTime
        /// The next request of the same subject, or -1.
        var next: Int32
        var state: WaiterState
        var generation: UInt32
    }

    private enum WaiterState {
        case free, waiting
        /// The loss rule has answered; the transaction may still tell.
        case admittedByLossRule, refusedByLossRule
    }

    /// What is known of a subject.
    private struct Subject {
        var firstWaiter: Int32 = -1
        var lastWaiter: Int32 = -1
        var waiting = 0
        var isQueued = false
        var underWay = false
        /// Until then the window is known to be full.
        var fullUntil = MonotonicTime(nanoseconds: .min)
        /// When the oldest entry leaves, for Retry-After.
        var freesAt = MonotonicTime(nanoseconds: .min)
    }

    private struct Transaction {
        enum Kind {
            case window
            /// Gives late survivors a score that is not before their time.
            case confirmation
            /// Takes back what a refused request was charged.
            case giveBack
            /// Asks whether the server answers again.
            case probe
        }
        var kind: Kind
        var subject: SubjectKey
        var firstSequence: UInt64
        var count: Int
        var firstWaiter: Int32
        var sentAt: MonotonicTime
        var score: RedisTime
        var admitted: Int
    }

    private let context: LimiterContext
    private let loop: Loop
    private let report: (LimiterEvent) -> Void
    private var connection: RedisConnection!
    private var clock = ServerClock()
    private var names: MemberNames

    private var subjects: SubjectTable<Subject>
    private var waiters: [Waiter] = []
    private var freeWaiters: [Int32] = []
    /// Waiters in the order of their deadlines, which all lie equally far ahead.
    private var deadlines: [(index: Int32, generation: UInt32)] = []
    private var deadlinesHead = 0
    private var queued: [SubjectKey] = []
    private var sending: [SubjectKey] = []
    private var transactions: [Transaction] = []
    /// Entries to give back; reused.
    private var refused: [UInt64] = []
    private var freeTransactions: [Int] = []
    private var timer: LoopTimer!
    private var timerSet = false
    private var turnAsked = false

    // Loss: after a few timeouts in a row nobody waits any more until a probe is answered.
    private var lossesInARow = 0
    private var isLost = true
    private var lossReported = false
    private var probeUnderWay = false
    private var probeTimer: LoopTimer!

    /// Timeouts in a row after which nobody waits any more. One may be chance; three are not.
    private static let lossesMax = 3
    /// How often a lost server is asked whether it is back: often enough to use it again well within a second.
    private static let probePause = TimeSpan.milliseconds(100)
    /// Subjects that are waiting, under way or remembered as full.
    private static let subjectsMax = 1 << 16
    /// A full window is remembered no longer, so that a `DEL` by an operator is honoured.
    private static let fullMemoryMax = TimeSpan.seconds(1)
    /// And no shorter: a hot, refused client costs Redis at most a transaction in this time and node.
    private static let fullMemoryMin = TimeSpan.milliseconds(5)

    package init(
        _ context: LimiterContext, endpoint: RedisEndpoint, worker: Int, loop: Loop, resolver: Resolver, name: String,
        report: @escaping (LimiterEvent) -> Void
    ) {
        self.context = context
        self.loop = loop
        self.report = report
        names = MemberNames(boot: context.boot, worker: worker)
        subjects = SubjectTable(countMax: Self.subjectsMax, seed: context.seed)
        connection = RedisConnection(
            endpoint, name: name, loop: loop, resolver: resolver, seed: context.seed &+ UInt64(worker), observer: self)
        timer = LoopTimer(loop) { [weak self] in self?.expireWaiters() }
        probeTimer = LoopTimer(loop) { [weak self] in self?.probe() }
        connection.start()
    }

    // MARK: Asking

    /// Decides a request of a subject, or promises to.
    package func check(_ subject: SubjectKey, requester: any LimitRequester, token: UInt64) -> LimitDecision {
        let now = loop.now
        if isLost { return .decided(lossVerdict(subject, now)) }
        let place: Int
        if let found = subjects.find(subject) {
            if subjects[found].fullUntil > now {
                return .decided(.refuse(retryAfter: max(subjects[found].freesAt - now, .milliseconds(1))))
            }
            place = found
        } else {
            subjects.sweep(steps: 2) { $0.waiting == 0 && !$0.underWay && !$0.isQueued && $0.fullUntil <= now }
            guard let made = subjects.insert(subject, Subject()) else {
                return .decided(lossVerdict(subject, now))
            }
            place = made
        }
        enqueue(place, subject, requester, token, now)
        return .pending
    }

    private func enqueue(
        _ place: Int, _ subject: SubjectKey, _ requester: any LimitRequester, _ token: UInt64, _ now: MonotonicTime
    ) {
        let index = takeWaiter(subject, requester, token, now + context.timeout)
        let last = subjects[place].lastWaiter
        if last >= 0 { waiters[Int(last)].next = index } else { subjects[place].firstWaiter = index }
        subjects[place].lastWaiter = index
        subjects[place].waiting += 1
        deadlines.append((index, waiters[Int(index)].generation))
        if !timerSet {
            timerSet = true
            timer.schedule(at: now + context.timeout)
        }
        queue(place, subject)
    }

    private func queue(_ place: Int, _ subject: SubjectKey) {
        guard !subjects[place].underWay, !subjects[place].isQueued else { return }
        subjects[place].isQueued = true
        queued.append(subject)
        if !turnAsked {
            turnAsked = true
            loop.atEndOfTurn(self)
        }
    }

    private func takeWaiter(
        _ subject: SubjectKey, _ requester: any LimitRequester, _ token: UInt64, _ deadline: MonotonicTime
    ) -> Int32 {
        let free = freeWaiters.popLast()
        let generation = free.map { waiters[Int($0)].generation &+ 1 } ?? 0
        let waiter = Waiter(
            requester: requester, token: token, subject: subject, deadline: deadline, next: -1, state: .waiting,
            generation: generation)
        if let free {
            waiters[Int(free)] = waiter
            return free
        }
        waiters.append(waiter)
        return Int32(clamping: waiters.count - 1)
    }

    private func freeWaiter(_ index: Int32) {
        waiters[Int(index)].requester = nil
        waiters[Int(index)].state = .free
        freeWaiters.append(index)
    }

    // MARK: Sending

    package func turnEnded() {
        turnAsked = false
        if isLost {
            releaseWaiting()
            return
        }
        swap(&queued, &sending)
        loop.updateTime()
        for subject in sending { send(subject) }
        sending.removeAll(keepingCapacity: true)
    }

    private func send(_ subject: SubjectKey) {
        guard let place = subjects.find(subject) else { return }
        subjects[place].isQueued = false
        guard !subjects[place].underWay, subjects[place].waiting > 0 else { return }
        // More than the limit cannot be admitted: who is beyond it shares the answer of the last.
        let count = min(subjects[place].waiting, context.policy.limit, WindowTransaction.entriesMax)
        let first = subjects[place].firstWaiter
        var last = first
        let taken = subjects[place].waiting <= WindowTransaction.entriesMax ? subjects[place].waiting : max(count, 1)
        for _ in 1..<max(taken, 1) { last = waiters[Int(last)].next }
        subjects[place].firstWaiter = waiters[Int(last)].next
        waiters[Int(last)].next = -1
        if subjects[place].firstWaiter < 0 { subjects[place].lastWaiter = -1 }
        subjects[place].waiting -= taken
        subjects[place].underWay = true
        let sequence = names.take(count)
        let score = WindowTransaction.write(
            context.key, subject, names: names, first: sequence, count: count, clock: clock, now: loop.now,
            to: connection)
        let token = begin(
            Transaction(
                kind: .window, subject: subject, firstSequence: sequence, count: count, firstWaiter: first,
                sentAt: loop.now, score: score, admitted: 0))
        connection.endTransaction(self, token: token)
    }

    private func begin(_ transaction: Transaction) -> UInt64 {
        if let index = freeTransactions.popLast() {
            transactions[index] = transaction
            return UInt64(index)
        }
        transactions.append(transaction)
        return UInt64(transactions.count - 1)
    }

    private func end(_ token: UInt64) -> Transaction {
        let transaction = transactions[Int(token)]
        freeTransactions.append(Int(token))
        return transaction
    }

    // MARK: Answers

    package func redisReplied(_ reply: Reply, token: UInt64) {
        let transaction = end(token)
        switch transaction.kind {
        case .window: windowReplied(reply, transaction)
        case .confirmation: confirmationReplied(reply, transaction)
        case .giveBack: break
        case .probe: probeReplied(transaction, reply)
        }
    }

    private func windowReplied(_ reply: Reply, _ transaction: Transaction) {
        switch WindowTransaction.interpret(reply, count: transaction.count) {
        case .malformed(let reason):
            report(.anomaly(reason))
            answerByLossRule(transaction)
        case .decided(let admitted, let time, let oldest):
            loop.updateTime()
            clock.observe(ServerTimeSample(sentAt: transaction.sentAt, receivedAt: loop.now, time: time))
            lossesInARow = 0
            reportRestored()
            var decided = transaction
            decided.admitted = admitted
            if let oldest { rememberFull(decided, oldest) }
            if admitted > 0, time > transaction.score {
                confirm(decided)
            } else {
                settle(decided)
            }
        }
    }

    /// A refusal, or a limit that these requests used up, means that the window is full until its oldest entry leaves.
    private func rememberFull(_ transaction: Transaction, _ oldest: RedisTime) {
        guard let place = subjects.find(transaction.subject) else { return }
        let now = loop.now
        let frees = clock.moment(of: oldest + context.policy.window)
        subjects[place].freesAt = max(frees, now)
        guard transaction.admitted < transaction.count else { return }
        subjects[place].fullUntil = min(max(frees, now + Self.fullMemoryMin), now + Self.fullMemoryMax)
    }

    /// Gives late survivors a score that is not before their time, and finds out whether they are all still there.
    private func confirm(_ transaction: Transaction) {
        guard connection.isReady else {
            answerByLossRule(transaction)
            return
        }
        let score = clock.upper(at: loop.now)
        connection.write { writer in
            writer.add("ZADD")
            writer.add { context.key.write(transaction.subject, to: &$0) }
            writer.add("XX")
            writer.add("CH")
            for sequence in transaction.firstSequence..<(transaction.firstSequence + UInt64(transaction.admitted)) {
                writer.add(score.microseconds)
                writer.add { names.write(sequence, to: &$0) }
            }
        }
        var confirmation = transaction
        confirmation.kind = .confirmation
        connection.sendCommand(self, token: begin(confirmation))
    }

    private func confirmationReplied(_ reply: Reply, _ transaction: Transaction) {
        guard reply.kind(0) == .integer, let changed = reply.integer(0) else {
            report(.anomaly("a confirmation of another shape"))
            answerByLossRule(transaction)
            return
        }
        var confirmed = transaction
        if changed < Int64(transaction.admitted) {
            // Somebody has dropped them: their slots may be taken. None is admitted, and what is left is given back.
            refused.removeAll(keepingCapacity: true)
            for offset in 0..<UInt64(transaction.admitted) { refused.append(transaction.firstSequence + offset) }
            giveBack(transaction)
            confirmed.admitted = 0
        }
        settle(confirmed)
    }

    /// Tells everyone of a transaction.
    private func settle(_ transaction: Transaction) {
        let now = loop.now
        var index = transaction.firstWaiter
        var position = 0
        var record = 0
        refused.removeAll(keepingCapacity: true)
        let retryAfter = self.retryAfter(transaction.subject, now)
        while index >= 0 {
            let waiter = waiters[Int(index)]
            let admitted = position < transaction.admitted
            freeWaiter(index)
            switch waiter.state {
            case .waiting:
                if admitted { record += 1 }
                waiter.requester?.limitDecided(
                    token: waiter.token, verdict: admitted ? .admit : .refuse(retryAfter: retryAfter))
            case .refusedByLossRule: if admitted { refused.append(transaction.firstSequence + UInt64(position)) }
            case .admittedByLossRule, .free: break
            }
            index = waiter.next
            position += 1
        }
        if record > 0 { context.memory.record(record, of: transaction.subject, at: now) }
        giveBack(transaction)
        finish(transaction.subject)
    }

    private func retryAfter(_ subject: SubjectKey, _ now: MonotonicTime) -> TimeSpan {
        guard let place = subjects.find(subject) else { return .milliseconds(1) }
        return max(subjects[place].freesAt - now, .milliseconds(1))
    }

    /// The subject's transaction is over: whoever gathered meanwhile is next.
    private func finish(_ subject: SubjectKey) {
        guard let place = subjects.find(subject) else { return }
        subjects[place].underWay = false
        if subjects[place].waiting > 0 {
            if subjects[place].fullUntil > loop.now {
                refuseWaiting(place, loop.now)
            } else {
                queue(place, subject)
            }
        }
        guard let again = subjects.find(subject) else { return }
        let state = subjects[again]
        if state.waiting == 0, !state.underWay, !state.isQueued, state.fullUntil <= loop.now { subjects.remove(subject) }
    }

    /// The window turned out to be full while these were waiting for their turn.
    private func refuseWaiting(_ place: Int, _ now: MonotonicTime) {
        var index = subjects[place].firstWaiter
        let retryAfter = max(subjects[place].freesAt - now, .milliseconds(1))
        subjects[place].firstWaiter = -1
        subjects[place].lastWaiter = -1
        subjects[place].waiting = 0
        while index >= 0 {
            let waiter = waiters[Int(index)]
            freeWaiter(index)
            if waiter.state == .waiting {
                waiter.requester?.limitDecided(token: waiter.token, verdict: .refuse(retryAfter: retryAfter))
            }
            index = waiter.next
        }
    }

    // MARK: Giving back

    /// Takes the entries in `refused` out again: their requests were refused, so they must not be charged.
    private func giveBack(_ transaction: Transaction) {
        guard connection.isReady, !refused.isEmpty else { return }
        connection.write { writer in
            writer.add("ZREM")
            writer.add { context.key.write(transaction.subject, to: &$0) }
            for sequence in refused { writer.add { names.write(sequence, to: &$0) } }
        }
        var back = transaction
        back.kind = .giveBack
        connection.sendCommand(self, token: begin(back))
    }

    // MARK: Loss

    private func lossVerdict(_ subject: SubjectKey, _ now: MonotonicTime) -> Verdict {
        switch context.lossRule {
        case .open: .admit
        case .closed: .refuse(retryAfter: .seconds(1))
        case .share: context.memory.admit(subject, share: context.share, at: now)
        }
    }

    /// Decides everyone of a transaction that Redis did not decide.
    private func answerByLossRule(_ transaction: Transaction) {
        let now = loop.now
        var index = transaction.firstWaiter
        while index >= 0 {
            let waiter = waiters[Int(index)]
            freeWaiter(index)
            if waiter.state == .waiting {
                waiter.requester?.limitDecided(token: waiter.token, verdict: lossVerdict(transaction.subject, now))
            }
            index = waiter.next
        }
        finish(transaction.subject)
    }

    package func redisFailed(_ failure: RedisFailure, token: UInt64) {
        let transaction = end(token)
        switch transaction.kind {
        case .window, .confirmation:
            if case .refused(let text) = failure {
                lose(text)
            }
            answerByLossRule(transaction)
        case .giveBack: break
        case .probe:
            probeUnderWay = false
            if connection.isReady { probeTimer.schedule(after: Self.probePause) }
        }
    }

    /// Nobody waits longer than `timeout`.
    private func expireWaiters() {
        timerSet = false
        let now = loop.now
        var expired = 0
        while deadlinesHead < deadlines.count {
            let (index, generation) = deadlines[deadlinesHead]
            let waiter = waiters[Int(index)]
            if waiter.generation == generation, waiter.state == .waiting {
                guard waiter.deadline <= now else { break }
                expired += 1
                expire(index)
            }
            deadlinesHead += 1
        }
        if deadlinesHead == deadlines.count {
            deadlines.removeAll(keepingCapacity: true)
            deadlinesHead = 0
        } else {
            if deadlinesHead > 4096 {
                deadlines.removeFirst(deadlinesHead)
                deadlinesHead = 0
            }
            let next = waiters[Int(deadlines[deadlinesHead].index)].deadline
            timerSet = true
            timer.schedule(at: max(next, now))
        }
        if expired > 0 {
            lossesInARow += 1
            if lossesInARow >= Self.lossesMax { lose("no answer within \(context.timeout), \(lossesInARow) times in a row") }
        }
    }

    private func expire(_ index: Int32) {
        // The place in its subject's list stays: the transaction that carries it may still be answered, and what it
        // then admits is what the loss rule admitted, or is given back.
        let verdict = lossVerdict(waiters[Int(index)].subject, loop.now)
        waiters[Int(index)].state = verdict == .admit ? .admittedByLossRule : .refusedByLossRule
        let requester = waiters[Int(index)].requester
        waiters[Int(index)].requester = nil
        requester?.limitDecided(token: waiters[Int(index)].token, verdict: verdict)
    }

    private func lose(_ reason: String) {
        guard !isLost else { return }
        isLost = true
        lossesInARow = 0
        reportLoss(reason)
        probeTimer.schedule(after: Self.probePause)
    }

    private func reportLoss(_ reason: String) {
        guard !lossReported else { return }
        lossReported = true
        report(.lost(reason))
    }

    private func reportRestored() {
        guard lossReported else { return }
        lossReported = false
        report(.restored)
    }

    private func probe() {
        guard isLost, connection.isReady, !probeUnderWay else { return }
        probeUnderWay = true
        loop.updateTime()
        connection.write { $0.add("TIME") }
        connection.sendCommand(
            self,
            token: begin(
                Transaction(
                    kind: .probe, subject: SubjectKey(.v4Any), firstSequence: 0, count: 0, firstWaiter: -1,
                    sentAt: loop.now, score: RedisTime(microseconds: 0), admitted: 0)))
    }

    private func probeReplied(_ transaction: Transaction, _ reply: Reply) {
        probeUnderWay = false
        loop.updateTime()
        guard let seconds = reply.integer(1), let micros = reply.integer(2), loop.now - transaction.sentAt <= context.timeout
        else {
            probeTimer.schedule(after: Self.probePause)
            return
        }
        let time = RedisTime(microseconds: saturatingAdd(saturatingMultiply(seconds, 1_000_000), micros))
        clock.observe(ServerTimeSample(sentAt: transaction.sentAt, receivedAt: loop.now, time: time))
        // Whether it also writes again, the next transaction tells.
        isLost = false
        lossesInARow = 0
    }

    // MARK: Connection

    package func redisReady(_ connection: RedisConnection, sample: ServerTimeSample) {
        // A new connection may lead to another server: what is known of the old one's clock does not count.
        clock = ServerClock()
        clock.observe(sample)
        isLost = false
        lossesInARow = 0
        reportRestored()
    }

    package func redisLost(_ connection: RedisConnection, _ failure: RedisFailure) {
        isLost = true
        lossesInARow = 0
        probeUnderWay = false
        reportLoss(failure.description)
        releaseWaiting()
    }

    /// Requests that have not been sent yet are decided at once.
    private func releaseWaiting() {
        for subject in queued {
            guard let place = subjects.find(subject) else { continue }
            subjects[place].isQueued = false
            var index = subjects[place].firstWaiter
            subjects[place].firstWaiter = -1
            subjects[place].lastWaiter = -1
            subjects[place].waiting = 0
            while index >= 0 {
                let waiter = waiters[Int(index)]
                freeWaiter(index)
                if waiter.state == .waiting {
                    waiter.requester?.limitDecided(token: waiter.token, verdict: lossVerdict(subject, loop.now))
                }
                index = waiter.next
            }
        }
        queued.removeAll(keepingCapacity: true)
    }

    package func redisSubscribed(_ connection: RedisConnection) {}
    package func redisMessage(_ connection: RedisConnection, channel: String, payload: String) {}
}
