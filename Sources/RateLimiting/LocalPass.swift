// A first pass in the node: floods are refused before Redis is asked.

import Identity
import Primitives

extension LimiterContext {
    /// Who floods the policies that have a first pass; nothing where nobody does.
    ///
    /// The bucket holds twice the limit and fills with twice the limit a window. Whoever stays within the limit never
    /// meets it: a window admits at most its limit at once and as much again in each further window. And whoever hammers
    /// is let through to Redis twice as often as there is room, so that none of it is lost. The time may be that of the
    /// turn: what is missing of it is missing of the second limit, and that lasts for half a window.
    func localRefusal(_ subjects: [SubjectKey], _ costs: [UInt16], at now: MonotonicTime) -> PolicyReport {
        var report = PolicyReport()
        guard let localPass else { return report }
        for (place, subject) in subjects.enumerated() {
            let policy = policies[Int(subject.policy)]
            guard policy.isLocalFirst, policy.mode == .enforce,
                case .refuse(let wait) = localPass.take(subject, cost: costs.cost(place), at: now)
            else {
                report.mention(subject.policy, isShadow: policy.mode == .shadow)
                continue
            }
            // Of the window nobody has heard: it may have been filled just now.
            note(.refuse(retryAfter: max(wait, policy.wholeWait)), subject, by: .bucket, in: &report)
        }
        // A refused request takes nothing anywhere.
        for (place, subject) in subjects.enumerated() where report.isRefused && !report[place].isRefused {
            let policy = policies[Int(subject.policy)]
            if policy.isLocalFirst, policy.mode == .enforce { localPass.giveBack(subject, cost: costs.cost(place)) }
        }
        return report
    }

    static func localPass(_ policies: [Policy], seed: UInt64) -> TokenBucketStore? {
        guard policies.contains(where: \.isLocalFirst) else { return nil }
        let generous = policies.map { policy in
            Policy(name: policy.name, limit: 2 * policy.limit, window: policy.window, burst: 2 * policy.limit)
        }
        return TokenBucketStore(policies: generous, seed: seed, clientsMax: 1 << 18)
    }
}
