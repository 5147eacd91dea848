// One worker's part of the cluster-wide limit, as a value that does no I/O: requests, replies and time go in; verdicts
// and transactions to send come out. `Limiter` drives it on a loop; the tests drive it through a simulation.
//
// While a transaction of a subject is under way, further requests of that subject gather and go together in the next
// one: the wait is at most one more round trip, and a hot key gets cheaper as it gets hotter. (A transaction a request
// was rejected: at ten thousand requests a second of one client Redis would do nothing else.)
//
// A transaction whose TIME is later than the score it gave is confirmed before anyone is admitted by it;
// docs/decisions/late-transactions.md says why.

package import Identity
import LinuxIO
package import Primitives
import RedisClient

/// A verdict on its way to the one who waits for it.
package struct LimitAnswer {
    package let requester: any LimitRequester
    package let token: UInt64
    package let verdict: Verdict
    /// The place of what several policies said, for `takeReport`; -1 where one was asked.
    var report: Int32 = -1
}

/// Something to send: `WindowMachine.write` knows the commands.
package struct Transmission: Equatable, Sendable {
    package enum Form: Equatable, Sendable {
        case command
        /// `MULTI`, so many commands, `EXEC`.
        case transaction(commands: Int)
    }
    package var token: UInt64
    package var form: Form
    /// Whether it is a transaction that begins with `TIME`, so that others of its kind can go into the same one.
    package var mayShare = false
}

package struct WindowMachine: ~Copyable {
    /// One request that waits.
    struct Request {
        enum State {
            case waiting
            /// The loss rule has answered; the transaction that carries it may still tell.
            case admittedByLossRule, refusedByLossRule
        }
        /// The place of who waits for it, in `requesters`; -1 where nobody does. A request holds no reference, so that a
        /// look at it counts none.
        var requester: Int32
        var token: UInt64
        var subject: SubjectKey
        var deadline: MonotonicTime
        /// Tells it from others that had this place before.
        var serial: UInt64
        /// The transaction that carries it; -1 while it gathers, `confirming` when that one has been answered.
        var flight: Int32
        /// The next request of the same transaction, or of those that gather; -1 for none.
        var next: Int32
        var state: State
        /// Slots that it takes, all or none.
        var cost: UInt16 = 1
        /// What it is of a request that several policies decide; -1 where it is all of it.
        var part: Int32 = -1

        static let confirming = Int32.max
    }

    /// A subject with requests that gather or are under way.
    struct ActiveSubject {
        var first: Int32 = -1
        var last: Int32 = -1
        /// Requests that gather and are not answered.
        var waiting = 0
        var flights = 0
        var isQueued = false
        /// The next transaction is the one that a full window lets through.
        var isAsker = false
        /// Those who gather wait until it may.
        var isHeld = false
    }

    struct WindowFlight {
        var transaction: WindowTransaction
        /// The requests in the order of their entries; those beyond the entries cannot be admitted.
        var firstRequest: Int32
        var isAsker: Bool
        var isTimedOut = false
    }

    /// Entries with names in a row: to take out, or to put in. Of a policy in buckets, all in the bucket `first`.
    struct Entries {
        var subject: SubjectKey
        var first: UInt64
        var count: Int
        /// When their requests were decided.
        var at: MonotonicTime
        /// Whether the requests were refused, so that the entries must not be charged, or were admitted without the
        /// window, so that they must be.
        var isCharged: Bool
        /// The lease that is to be renewed by this; -1 where it is something else.
        var renewal: Int32 = -1
    }

    /// What is under way.
    enum Flight {
        case window(WindowFlight)
        /// Gives late survivors the time at which they were admitted, if they are all still there.
        case confirmation(WindowFlight, admitted: Int, time: RedisTime)
        case entries(Entries)
        /// Drops entries that should not be there: later than `time`.
        case cleanup(SubjectKey, after: RedisTime)
        /// Copies what the windows of former limits hold.
        case carrying(SubjectKey)
        /// Drops buckets that have left their window, so many from the first on.
        case sweep(SubjectKey, first: UInt64, count: Int)
        case probe(sentAt: MonotonicTime)
    }

    let context: LimiterContext
    /// What the worker's requests hold.
    let leases: LeaseKeeper
    let worker: Int
    /// Of each different window.
    var clocks: [ServerClock]
    let templates: [WindowTemplates]
    var names: MemberNames
    var carrying: Carrying
    package internal(set) var breaker = LossBreaker()

    var subjects: SubjectTable<ActiveSubject>
    var requests = Slots<Request>()
    /// Who waits for the requests that are not answered.
    var requesters = Slots<any LimitRequester>()
    var flights = Slots<Flight>()
    /// Waiting requests in the order of their deadlines, which all lie equally far ahead.
    var deadlines = Queue<(index: Int32, serial: UInt64)>()
    var gathered = Queue<SubjectKey>()
    /// Those whose requests wait until a full window may be asked for; by these times, the next last.
    var held: [(subject: SubjectKey, until: MonotonicTime)] = []
    /// Their requests.
    package internal(set) var heldCount = 0
    /// Flights that are ready to be sent.
    var ready = Queue<Flight>()
    /// To be put right; kept until acknowledged, or until their window has passed.
    var entries = Queue<Entries>()
    /// What was under way when a connection ended, oldest first: it goes in front of `entries` again. Behind them, what is
    /// to be put in could follow what takes it out.
    var returned = Queue<Entries>()
    /// What the window let in lately, for a server that comes back without its data.
    var recent = Queue<Entries>()
    var entriesUnderWay = 0
    var nextSerial: UInt64 = 0
    var probeUnderWay = false
    var lastHeardAt = MonotonicTime(nanoseconds: 0)
    /// What the last report of a loss named, until Redis is back.
    var lossReported: RedisCause?
    /// What was told of keys that cannot be used.
    var keysTold = ToldLately<KeyFailure.Kind>()
    /// Why the last answer cannot be believed.
    private var mistrust: String?
    /// The value of the marker that is lost with the data.
    var epoch: [UInt8] = []
    var probeName: UInt64 = 0
    /// On a cluster: the hash tag that makes the probe's keys those of this machine's server.
    var probeTag: [UInt8] = []
    var lastProbeAt = MonotonicTime(nanoseconds: 0)
    /// Counts of buckets from before may be lost.
    var countsKnownSince = MonotonicTime(nanoseconds: .min)
    /// Entries that were not put right, for lack of room.
    package internal(set) var entriesDropped = 0
    /// Whether leases were due that could not be renewed.
    var isBehind = false
    /// New runs until the list of them may be gone through for what is worth nothing.
    var untilSifted = 0

    /// Requests that several policies decide, what they ask of each, and what was said of those that are decided.
    var joins = Slots<Join>()
    var parts = Slots<Part>()
    var reports = Slots<PolicyReport>()

    private var answers: [LimitAnswer] = []
    private var partAnswers: [PartAnswer] = []
    private var events: [LimiterEvent] = []

    /// Requests that wait at once. More than that means that Redis is far too slow; they are decided by the loss rule.
    static let requestsMax = 1 << 17
    /// The same while a server is connected to for the first time, which takes a few milliseconds where it lives.
    static let connectingMax = 1 << 12
    static let subjectsMax = 1 << 16
    /// Runs of entries that wait to be put right, and how many of them are sent at once, so that coming back does not
    /// keep Redis from answering requests.
    static let entriesMax = 1 << 16
    static let entriesUnderWayMax = 128
    /// Longer windows are not added back after a loss of data: what was admitted in them would be too much to remember.
    static let rememberedMax = TimeSpan.seconds(60)
    /// Events nobody has taken; anomalies can come in thousands.
    private static let eventsMax = 64

    /// - Parameters:
    ///   - shard: tells the machines of one worker from each other where there is one for each server of a cluster.
    ///   - leases: those of the worker; `nil` for an own keeper.
    package init(_ context: LimiterContext, worker: Int, shard: Int = 0, leases: LeaseKeeper? = nil) {
        self.context = context
        self.leases = leases ?? LeaseKeeper(context.policies, held: context.held)
        self.worker = worker
        clocks = context.windows.map { ServerClock(window: $0) }
        templates = context.keys.map { WindowTemplates($0) }
        names = MemberNames(boot: context.boot, worker: worker, era: context.era, shard: shard)
        carrying = Carrying(context)
        subjects = SubjectTable(countMax: Self.subjectsMax, seed: context.seed)
    }

    /// Memory of its tables.
    package var bytes: Int {
        subjects.bytes + requests.bytes + flights.bytes + deadlines.bytes + gathered.bytes + ready.bytes + entries.bytes
            + returned.bytes + recent.bytes + joins.bytes + parts.bytes + reports.bytes
    }

    // MARK: Outputs

    /// Verdicts for requests that were pending. Deliver them when no call to the machine is under way.
    package mutating func takeAnswers(into list: inout [LimitAnswer]) { swap(&answers, &list) }
    package var hasAnswers: Bool { !answers.isEmpty }

    package mutating func takeEvents() -> [LimiterEvent] {
        defer { events.removeAll(keepingCapacity: true) }
        return events
    }
    package var hasEvents: Bool { !events.isEmpty }

    /// Why the connection must be closed: an answer had the wrong shape, so nobody knows whose it was.
    package mutating func takeMistrust() -> String? {
        guard mistrust != nil else { return nil }
        defer { mistrust = nil }
        return mistrust
    }

    mutating func distrust(_ reason: String) { mistrust = reason }

    /// Whether `next` has something to send.
    package var wantsToSend: Bool {
        if breaker.mayAsk { return !gathered.isEmpty || !ready.isEmpty || canSendEntries }
        // Who gathers for a server that is not asked is let go.
        return !(gathered.isEmpty && held.isEmpty) && !breaker.isConnecting
    }

    var canSendEntries: Bool { !(entries.isEmpty && returned.isEmpty) && entriesUnderWay < Self.entriesUnderWayMax }

    /// When the first waiting request, or the wait for a connection, has lasted long enough; call `expire` then.
    package var nextDeadline: MonotonicTime? {
        mutating get {
            dropStaleDeadlines()
            let first = deadlines.first.map { requests[Int($0.index)].deadline }
            guard case .connecting(let until) = breaker.state else { return first }
            return min(first ?? until, until)
        }
    }

    mutating func dropStaleDeadlines() {
        while let (index, serial) = deadlines.first, !isWaiting(index, serial) { _ = deadlines.popFirst() }
    }

    func isWaiting(_ index: Int32, _ serial: UInt64) -> Bool {
        guard requests.contains(Int(index)) else { return false }
        return requests[Int(index)].serial == serial && requests[Int(index)].state == .waiting
    }

    /// Puts a verdict on its way.
    mutating func deliver(_ verdict: Verdict, _ request: Request) {
        guard let requester = requesters.remove(Int(request.requester)) else { return }
        deliver(verdict, requester, token: request.token)
    }

    mutating func deliver(_ verdict: Verdict, _ requester: any LimitRequester, token: UInt64) {
        answers.append(LimitAnswer(requester: requester, token: token, verdict: verdict))
    }

    /// Puts on its way what several policies said.
    mutating func deliver(_ report: PolicyReport, _ join: Join) {
        guard let requester = join.requester else { return }
        let place = Int32(clamping: reports.insert(report))
        answers.append(
            LimitAnswer(requester: requester, token: join.token, verdict: report.verdict, report: place))
    }

    /// What the policies said of a request; once for each answer.
    package mutating func takeReport(_ answer: LimitAnswer) -> PolicyReport? {
        answer.report >= 0 ? reports.remove(Int(answer.report)) : nil
    }

    /// What was decided of parts that were pending.
    package mutating func takePartAnswers() -> [PartAnswer] {
        defer { partAnswers.removeAll(keepingCapacity: true) }
        return partAnswers
    }
    package var hasPartAnswers: Bool { !partAnswers.isEmpty }

    mutating func report(_ answer: PartAnswer) { partAnswers.append(answer) }

    mutating func report(_ event: LimiterEvent) {
        if events.count < Self.eventsMax { events.append(event) }
    }

    // MARK: Asking

    /// Decides a request of a subject, or takes it in.
    package mutating func ask(
        _ subject: SubjectKey, _ requester: any LimitRequester, token: UInt64, at now: MonotonicTime
    ) -> LimitDecision {
        guard breaker.mayWait else { return .decided(lossVerdict(subject, at: now, charging: true)) }
        switch enter(subject, requester, token: token, part: -1, at: now) {
        case .pending: return .pending
        case .full(let retryAfter):
            let verdict = Verdict.refuse(retryAfter: retryAfter)
            context.count(verdict, of: subject, by: .fullWindow)
            return .decided(verdict)
        case .noRoom: return .decided(lossVerdict(subject, at: now, charging: true))
        }
    }

    enum Entered {
        case pending(Int32)
        case full(retryAfter: TimeSpan)
        case noRoom
    }

    /// Takes in a request, or what it asks of one policy.
    @inline(__always)
    mutating func enter(
        _ subject: SubjectKey, _ requester: (any LimitRequester)?, token: UInt64, part: Int32, cost: UInt16 = 1,
        at now: MonotonicTime
    ) -> Entered {
        var isAsker = false
        var heldUntil: MonotonicTime?
        let place: Int
        let hasRoom = requests.count < (breaker.isConnecting ? Self.connectingMax : Self.requestsMax)
        if let found = subjects.find(subject), subjects[found].flights > 0 || subjects[found].waiting > 0 {
            // Gathers with the others, whatever is known of the window: its transaction is under way, or about to be.
            if subjects[found].isHeld, let retryAfter = retryAfterCrowd(found, subject, cost, at: now) {
                return .full(retryAfter: retryAfter)
            }
            place = found
        } else {
            let wholeWait = cost == 1 ? .zero : context.policies[Int(subject.policy)].wholeWait
            switch context.fullWindows.ask(subject, cost: cost, wholeWait: wholeWait, at: now) {
            case .full(let retryAfter): return .full(retryAfter: retryAfter)
            case .mayAsk: isAsker = true
            case .mayAskSoon(let time): heldUntil = time
            case .unknown: break
            }
            guard hasRoom, let found = subjects.find(subject) ?? subjects.insert(subject, ActiveSubject()) else {
                return .noRoom
            }
            place = found
        }
        guard hasRoom else { return .noRoom }
        nextSerial &+= 1
        let waiter = requester.map { Int32(clamping: requesters.insert($0)) } ?? -1
        let index = Int32(
            clamping: requests.insert(
                Request(
                    requester: waiter, token: token, subject: subject, deadline: now + context.timeout,
                    serial: nextSerial, flight: -1, next: -1, state: .waiting, cost: cost, part: part)))
        deadlines.append((index, nextSerial))
        if isAsker { subjects[place].isAsker = true }
        let last = subjects[place].last
        if last >= 0 { requests[Int(last)].next = index } else { subjects[place].first = index }
        subjects[place].last = index
        subjects[place].waiting += 1
        if subjects[place].isHeld {
            heldCount += 1
        } else if let heldUntil {
            hold(place, subject, until: heldUntil)
        }
        gather(place, subject)
        return .pending(index)
    }

    /// Lets the subject's requests go with the next write, unless a transaction of it is under way.
    mutating func gather(_ place: Int, _ subject: SubjectKey) {
        guard subjects[place].flights == 0, !subjects[place].isQueued else { return }
        subjects[place].isQueued = true
        gathered.append(subject)
    }
}
