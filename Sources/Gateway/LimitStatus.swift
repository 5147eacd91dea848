package import RateLimiting

/// What a node's limits have decided so far, for operators.
package struct LimitStatus: Sendable {
    package let policies: [Policy]
    private let counts: LimiterCounts
    private let policyCounts: [PolicyCounts]
    /// Whether one policy goes the short way, on which nothing is counted by policy.
    private let isSingle: Bool

    init(_ policies: [Policy], _ setup: LimiterSetup, isSingle: Bool) {
        self.policies = policies
        self.isSingle = isSingle
        switch setup {
        case .none: (counts, policyCounts) = (LimiterCounts(), policies.map { _ in PolicyCounts() })
        case .memory(let store): (counts, policyCounts) = (store.counts, store.policyCounts)
        case .redis(let context, _, _): (counts, policyCounts) = (context.counts, context.policyCounts)
        }
    }

    /// Decisions by who made them: Redis, what is known of a full window, the rule for when Redis is gone, or memory.
    package var bySource: [(source: VerdictSource, admitted: Int, refused: Int)] {
        VerdictSource.allCases.map { ($0, counts.admitted(by: $0), counts.refused(by: $0)) }
    }

    /// Requests that this node has let in; in shadow mode: those within the limit.
    package func admitted(by index: Int) -> Int {
        guard isSingle else { return policyCounts[index].admitted }
        return VerdictSource.allCases.reduce(0) { $0 + counts.admitted(by: $1) }
    }

    /// Requests that this node has refused; in shadow mode: would have refused.
    package func refused(by index: Int) -> Int {
        guard isSingle else { return policyCounts[index].refused }
        return VerdictSource.allCases.reduce(0) { $0 + counts.refused(by: $1) }
    }
}
