package import Identity
package import Primitives
package import RedisClient
package import Synchronization

/// Who waits for a decision. Called on the loop, once for each request that is pending.
package protocol LimitRequester: AnyObject {
    /// `token` is what was given with the request, so that an answer to one that is long gone can be told.
    func limitDecided(token: UInt64, verdict: Verdict)
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
    /// Redis has forgotten what it knew; what this node remembers is added back.
    case dataLost
    /// An answer that cannot be believed.
    case anomaly(String)
}

/// Who writes down what was admitted, and when by the server's clock: for checking the promise from outside.
package protocol DecisionRecorder: AnyObject, Sendable {
    func admitted(_ count: Int, _ subject: SubjectKey, by source: VerdictSource, at time: RedisTime)
}

/// What the limiters of a node's workers share.
package final class LimiterContext: Sendable {
    package let policy: Policy
    package let key: WindowKey
    package let lossRule: LossRule
    /// The longest wait of a request for Redis.
    package let timeout: TimeSpan
    package let memory: AdmissionMemory
    package let fullWindows: FullWindowMemory
    package let counts = LimiterCounts()
    package let failures = RedisFailureCounts()
    /// Nodes alive as last known, at least 1.
    package let liveNodes = Atomic<Int>(1)
    package let boot: UInt64
    package let seed: UInt64
    /// `nil`: nobody asks.
    package let decisions: (any DecisionRecorder)?

    /// - Parameters:
    ///   - timeout: at least a millisecond.
    ///   - boot: 64 random bits, new with every start of the process.
    ///   - seed: a secret, for the hashing of clients' addresses.
    ///   - onCluster: whether keys need hash tags.
    ///   - decisions: who is told of each admission.
    package init(
        _ policy: Policy, lossRule: LossRule, timeout: TimeSpan, boot: UInt64, seed: UInt64, onCluster: Bool = false,
        decisions: (any DecisionRecorder)? = nil
    ) {
        self.decisions = decisions
        self.policy = policy
        key = WindowKey(policy, onCluster: onCluster)
        self.lossRule = lossRule
        self.timeout = max(timeout, .milliseconds(1))
        self.boot = boot
        self.seed = seed
        memory = AdmissionMemory(window: policy.window, seed: seed)
        fullWindows = FullWindowMemory(seed: seed)
    }

    /// This node's part of the limit while Redis is gone: the limit divided by the live nodes, rounded up.
    package var share: Int {
        let nodes = max(1, liveNodes.load(ordering: .relaxed))
        return (policy.limit - 1) / nodes + 1
    }
}

/// How many requests were decided, and by whom: for metrics. Written by all workers of a node.
package final class LimiterCounts: Sendable {
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
}
