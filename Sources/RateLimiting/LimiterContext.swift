import EventLoop
package import Identity
import LinuxIO
package import Primitives
package import RedisClient
import Synchronization

/// Who waits for a decision. Called on the loop, once for each request that is pending.
package protocol LimitRequester: AnyObject {
    /// `token` is what was given with the request, so that an answer to one that is long gone can be told.
    func limitDecided(token: UInt64, verdict: Verdict)
    /// The same for a request that several policies have decided.
    func limitsDecided(token: UInt64, _ report: PolicyReport)
}

extension LimitRequester {
    package func limitsDecided(token: UInt64, _ report: PolicyReport) {
        limitDecided(token: token, verdict: report.verdict)
    }
}

package enum LimitDecision: Equatable, Sendable {
    case decided(Verdict)
    /// `limitDecided` will be called, after `timeout` at the latest.
    case pending
}

/// What happens to a limiter as a whole, for the log.
package enum LimiterEvent: Equatable, Sendable {
    /// Redis is not asked any more; the loss rule decides. Told again when the cause changes.
    case lost(RedisFailure)
    case restored
    /// It is asked for the first time; told once.
    case reached
    /// Redis has forgotten what it knew; what this node remembers is added back.
    case dataLost
    /// An answer that cannot be believed.
    case anomaly(String)
    /// A key cannot be used, though the server serves. Told once in a while.
    case keyFailed(KeyFailure)
}

/// Who writes down what was admitted, and when by the server's clock: for checking the promise from outside.
package protocol DecisionRecorder: AnyObject, Sendable {
    /// - Parameter time: `nil` while the server has never said what time it is.
    func admitted(_ count: Int, _ subject: SubjectKey, by source: VerdictSource, at time: RedisTime?)
}

/// What the limiters of a node's workers share. Subjects say by their number which of the policies counts.
package final class LimiterContext: Sendable {
    package let policies: [Policy]
    package let keys: [WindowKey]
    package let lossRule: LossRule
    /// The longest wait of a request for Redis.
    package let timeout: TimeSpan
    /// What a request really waits at the least: timers are late by up to two ticks.
    let patience: TimeSpan
    /// A server that was lost has to answer a probe within this: if it needed nearly as long as a request waits, it would
    /// be lost and found again for as long as it does.
    let probePatience: TimeSpan
    package let memories: [AdmissionMemory]
    package let fullWindows: FullWindowMemory
    /// Of each policy.
    package let policyCounts: [PolicyCounts]
    package let failures: RedisFailureCounts
    /// How long Redis took for each decision; a lane a worker.
    private let roundTripCounters: Counters
    /// Nodes that run as last known, those included that are cut off from Redis; at least 1.
    private let runningNodes = Atomic<Int>(1)
    /// Nodes that are cut off from Redis, and among how many each of them divides a limit: one number, so that nobody sees
    /// one of the two without the other.
    private let cutOffNodes = Atomic<UInt64>(0)
    package let boot: UInt64
    let era: Int
    package let seed: UInt64
    /// `nil`: nobody asks.
    package let decisions: (any DecisionRecorder)?
    /// The different windows, and which of them each policy has: what is known of the server's clock after a step depends
    /// on the window.
    let windows: [TimeSpan]
    /// Of each policy: what counts on under another limit.
    let former: [FormerWindows?]
    let onCluster: Bool
    /// Commands of a decision's transaction.
    let commandCount: Int
    /// Whether some decision ends with the question how many entries there are.
    let asksCounts: Bool
    /// Whether all policies count single requests one by one, which is the short way.
    let isPlain: Bool
    /// What this node's requests hold of policies that count those at once.
    package let held: HeldLeases
    /// The buckets of policies with a first pass in the node; `nil` where none has one.
    let localPass: TokenBucketStore?
    let windowOf: [Int]
    /// Of each policy: the average time from one slot of a full window that leaves to the next, for whom it matters.
    let paces: [TimeSpan]

    /// Policies of a node. Numbers of policies fit a byte, and with 64 of them a look at all costs little.
    package static let policiesMax = 64

    /// - Parameters:
    ///   - policies: 1...`policiesMax`.
    ///   - services: their names, by their numbers.
    ///   - tellsRemaining: whether Redis is asked with each decision what remains.
    ///   - timeout: at least a millisecond.
    ///   - boot: 64 random bits, new with every start of the process.
    ///   - era: no other limiter of the process has it: entries are named by it, and two of one name would take each other's.
    ///   - seed: a secret, for the hashing of clients' addresses.
    ///   - onCluster: whether keys need hash tags.
    ///   - decisions: who is told of each admission.
    ///   - before: whose place it takes: what was admitted lately is remembered, and counted on.
    ///   - rehearses: whether the loss rule decides as exactly as Redis would, for those who only want to know.
    package init(
        policies: [Policy], services: [String], tellsRemaining: Bool = false, lossRule: LossRule, timeout: TimeSpan,
        boot: UInt64, era: Int = 0, seed: UInt64, onCluster: Bool = false,
        decisions: (any DecisionRecorder)? = nil, failures: RedisFailureCounts = RedisFailureCounts(),
        before: LimiterContext? = nil, at now: MonotonicTime = MonotonicTime(nanoseconds: 0), workers: Int = 1,
        rehearses: Bool = false
    ) {
        self.onCluster = onCluster
        former = policies.indices.map { FormerWindows.after(before, policies[$0], at: now) }
        self.failures = failures
        precondition((1...Self.policiesMax).contains(policies.count))
        self.policies = policies
        self.decisions = decisions
        keys = policies.map {
            WindowKey($0, services: services, tellsRemaining: tellsRemaining, onCluster: onCluster)
        }
        commandCount = WindowTransaction.commandCount + (tellsRemaining ? 1 : 0)
        asksCounts = tellsRemaining && policies.contains { $0.form != .buckets }
        isPlain = policies.allSatisfy(\.isPlain)
        held = HeldLeases(seed: seed)
        localPass = Self.localPass(policies, seed: seed)
        self.lossRule = lossRule
        self.timeout = max(timeout, .milliseconds(1))
        patience = self.timeout - min(TimerWheel.tick * 2 + .milliseconds(1), self.timeout / 2)
        probePatience = patience / 5 * 4
        self.boot = boot
        self.era = era
        self.seed = seed
        let kept = policies.indices.map { index in
            before.map { $0.policies.indices.contains(index) && policies[index].isSameCount(as: $0.policies[index]) }
                ?? false
        }
        memories = policies.indices.map { index in
            if kept[index], let before { return before.memories[index] }
            return rehearses
                ? AdmissionMemory(rehearsing: policies[index], seed: seed)
                : AdmissionMemory(window: policies[index].window, seed: seed)
        }
        policyCounts = policies.indices.map { index in
            if kept[index], let before { return before.policyCounts[index] }
            return PolicyCounts()
        }
        fullWindows = FullWindowMemory(seed: seed, timeout: self.timeout)
        paces = policies.map(\.pace)
        roundTripCounters = Counters(width: Counters.histogramWidth, lanes: workers)
        var windows: [TimeSpan] = []
        windowOf = policies.map { policy in
            if let index = windows.firstIndex(of: policy.window) { return index }
            windows.append(policy.window)
            return windows.count - 1
        }
        self.windows = windows
    }

    package convenience init(
        _ policy: Policy, lossRule: LossRule, timeout: TimeSpan, boot: UInt64, seed: UInt64, onCluster: Bool = false
    ) {
        self.init(
            policies: [policy], services: [], lossRule: lossRule, timeout: timeout, boot: boot, seed: seed,
            onCluster: onCluster)
    }

    @inline(__always)
    func count(_ verdict: Verdict, of subject: SubjectKey, by source: VerdictSource) {
        policyCounts[Int(subject.policy)].count(verdict, by: source)
    }

    func noteRoundTrip(_ span: TimeSpan, worker: Int) {
        // A simulation may have more machines than it says, all on one thread.
        roundTripCounters.record(span, at: 0, lane: worker % roundTripCounters.lanes)
    }

    /// Memory of what the workers share, and of the histogram of round trips.
    package var bytes: Int {
        memories.reduce(fullWindows.bytes + held.bytes + (localPass?.bytes ?? 0)) { $0 + $1.bytes }
    }
    package var counterBytes: Int { roundTripCounters.bytes }

    package var roundTrips: DurationSummary { roundTripCounters.summary(at: 0) }

    /// The first policy; where there is one, it is the only one.
    package var policy: Policy { policies[0] }

    @inline(__always)
    func policy(of subject: SubjectKey) -> Policy { policies[Int(subject.policy)] }
    @inline(__always)
    func window(of subject: SubjectKey) -> TimeSpan { policies[Int(subject.policy)].window }
    /// How far ahead of the server's clock an entry can be although that clock was not set back: a score is the upper bound
    /// of a clock that is known to within the time that a request waits. What is further ahead blocks the subject for
    /// longer than its window, and is cleared away, within `clearingMax` from when it was seen: an entry that is added later
    /// may lie as far behind what was seen then.
    func aheadMax(of subject: SubjectKey) -> TimeSpan { window(of: subject) + timeout * 2 + Self.clearingMax }
    static let clearingMax = TimeSpan.seconds(1)
    @inline(__always)
    func key(of subject: SubjectKey) -> WindowKey { keys[Int(subject.policy)] }
    /// Whether a subject's window holds counts in place of entries.
    @inline(__always)
    func isInBuckets(_ subject: SubjectKey) -> Bool {
        !isPlain && policies[Int(subject.policy)].form == .buckets
    }
    /// Whether a subject's window holds the requests that run.
    @inline(__always)
    func isLeased(_ subject: SubjectKey) -> Bool {
        !isPlain && policies[Int(subject.policy)].form == .leases
    }
    @inline(__always)
    func memory(of subject: SubjectKey) -> AdmissionMemory { memories[Int(subject.policy)] }

    /// Takes in who runs.
    ///
    /// - Parameters:
    ///   - running: all nodes, those included that are cut off.
    ///   - cutOff: nodes that run and are cut off from Redis.
    ///   - sharers: among how many each of those divides a limit, which knew all nodes when it was cut off.
    package func nodesChanged(running: Int, cutOff: Int = 0, sharers: Int = 1) {
        runningNodes.store(max(1, running), ordering: .relaxed)
        let packed = UInt64(UInt16(clamping: cutOff)) << 32 | UInt64(UInt16(clamping: max(1, sharers)))
        cutOffNodes.store(cutOff > 0 && lossRule == .share ? packed : 0, ordering: .relaxed)
    }

    /// This node's part of the limit while Redis is gone: the limit divided by the nodes that run, rounded up.
    func share(of subject: SubjectKey) -> Int {
        let nodes = max(1, runningNodes.load(ordering: .relaxed))
        return (policies[Int(subject.policy)].limit - 1) / nodes + 1
    }

    /// Slots that the window in Redis does not fill: what nodes that are cut off from it admit by themselves. Their shares
    /// are rounded up and these down, so together they make the limit and less than one a node. Those who have Redis are left
    /// a share at least, also where one that is cut off knows of none of them.
    @inline(__always)
    func keptFree(of subject: SubjectKey) -> Int {
        let packed = cutOffNodes.load(ordering: .relaxed)
        return packed == 0 ? 0 : keptFree(of: subject, cutOff: Int(packed >> 32), sharers: Int(packed & 0xffff_ffff))
    }

    @inline(never)
    private func keptFree(of subject: SubjectKey, cutOff: Int, sharers: Int) -> Int {
        // Of requests at once nobody knows how many run on a node that is cut off.
        if isLeased(subject) { return 0 }
        let limit = policies[Int(subject.policy)].limit
        let left = max(1, limit / max(1, runningNodes.load(ordering: .relaxed)))
        let (shares, isTooMuch) = (limit / sharers).multipliedReportingOverflow(by: cutOff)
        return isTooMuch ? limit - left : min(limit - left, shares)
    }
}

/// How many requests a policy has let in and refused, and by whose word; of one in shadow mode: would have refused.
/// Written by all workers of a node.
package final class PolicyCounts: Sendable {
    private struct Pair: ~Copyable {
        let admitted = Atomic<Int>(0)
        let refused = Atomic<Int>(0)
    }

    private let window = Pair()
    private let fullWindow = Pair()
    private let share = Pair()
    private let open = Pair()
    private let closed = Pair()
    private let bucket = Pair()

    package init() {}

    private func withPair(_ source: VerdictSource, _ body: (borrowing Pair) -> Int) -> Int {
        switch source {
        case .window: body(window)
        case .fullWindow: body(fullWindow)
        case .share: body(share)
        case .open: body(open)
        case .closed: body(closed)
        case .bucket: body(bucket)
        }
    }

    package func count(_ verdict: Verdict, by source: VerdictSource) {
        switch verdict {
        case .admit: _ = withPair(source) { $0.admitted.add(1, ordering: .relaxed).newValue }
        case .refuse: _ = withPair(source) { $0.refused.add(1, ordering: .relaxed).newValue }
        }
    }

    package func admitted(by source: VerdictSource) -> Int { withPair(source) { $0.admitted.load(ordering: .relaxed) } }
    package func refused(by source: VerdictSource) -> Int { withPair(source) { $0.refused.load(ordering: .relaxed) } }

    package var admitted: Int { VerdictSource.allCases.reduce(0) { $0 + admitted(by: $1) } }
    package var refused: Int { VerdictSource.allCases.reduce(0) { $0 + refused(by: $1) } }
}
