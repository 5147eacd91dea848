import Identity
import Primitives
package import RateLimiting

/// What a node's limits have decided so far, for operators.
package struct LimitStatus: Sendable {
    package let policies: [Policy]
    private let counts: [PolicyCounts]
    private let setup: LimiterSetup
    private let keys: [WindowKey]

    init(_ policies: [Policy], services: [String], _ setup: LimiterSetup) {
        self.policies = policies
        self.setup = setup
        keys = policies.map { WindowKey($0, services: services) }
        counts =
            switch setup {
            case .none: policies.map { _ in PolicyCounts() }
            case .memory(let store): store.policyCounts
            case .redis(let context, _, _): context.policyCounts
            }
    }

    /// Decisions of a policy by whose word they were: that of Redis, of what is known of a full window, of the rule for
    /// when Redis is gone, or of memory.
    package func bySource(_ index: Int) -> [(source: VerdictSource, admitted: Int, refused: Int)] {
        VerdictSource.allCases.map { ($0, counts[index].admitted(by: $0), counts[index].refused(by: $0)) }
    }

    /// Whose limits are nearest to their bound, as far as this node has let them in.
    func busiest(atMost countMax: Int, at now: MonotonicTime) -> [SubjectUse] {
        switch setup {
        case .none: []
        case .memory(let store): store.busiest(atMost: countMax, at: now)
        case .redis(let context, _, _): context.busiest(atMost: countMax, at: now)
        }
    }

    /// As it stands in Redis: `user:42`.
    func name(of subject: SubjectKey) -> String {
        let index = Int(subject.policy)
        return keys.indices.contains(index) ? keys[index].name(subject) : ""
    }

    /// Requests that this node has let in; in shadow mode: those within the limit.
    package func admitted(by index: Int) -> Int { counts[index].admitted }

    /// Requests that this node has refused; in shadow mode: would have refused.
    package func refused(by index: Int) -> Int { counts[index].refused }
}
