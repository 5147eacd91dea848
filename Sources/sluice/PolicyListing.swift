// The policies of a configuration as a table and as JSON.

import Configuration
import Gateway
import Primitives
import RateLimiting

struct PolicyListing: Encodable {
    struct Cost: Encodable {
        var `default`: Int
        var methods: [String: Int]
        var paths: [String: Int]
    }

    struct Row: Encodable {
        var name: String
        var limit: Int
        /// Absent where requests at once are counted.
        var window: String?
        var key: String
        var mode: String
        var tiers: [String: Int]
        /// Absent where every request takes one slot.
        var cost: Cost?
        /// Absent where requests at once are counted.
        var precision: String?
        var concurrent: Bool
        /// How long a request counts whose node is gone.
        var lease: String?
        var localFirst: Bool
        /// Empty: all.
        var services: [String]
        var paths: [String]
        /// Those that Redis knows now, where that was asked; of all tiers.
        var subjects: Int?
    }

    var policies: [Row]

    init(_ configuration: Configuration, _ counts: [Limits.Count: Int]?) {
        guard let limit = configuration.rateLimit else {
            policies = []
            return
        }
        var subjects: [String: Int] = [:]
        // Tiers with the same limit share their windows.
        for limit in Set(Node.policies(limit).map({ Limits.Count(LimitKey($0, subject: "-")) })) {
            subjects[limit.policy, default: 0] += counts?[limit] ?? 0
        }
        func known(_ name: String) -> Int? { counts == nil ? nil : subjects[name] ?? 0 }
        let own = limit.requestsPerSecond.map { rate in
            Row(
                name: "default", limit: rate, window: "1s", key: "ip", mode: "enforce", tiers: [:], precision: "exact",
                concurrent: false, localFirst: false, services: [], paths: [], subjects: known("default"))
        }
        policies =
            (own.map { [$0] } ?? [])
            + zip(limit.policies, RehearsedPolicy.all(of: limit).suffix(limit.policies.count)).map { policy, flat in
                let cost = policy.cost
                return Row(
                    name: policy.name, limit: policy.limit, window: policy.concurrent ? nil : "\(policy.window)",
                    key: "\(flat.policy.key)", mode: policy.mode.rawValue,
                    tiers: Dictionary(policy.tiers.map { ($0.tier, $0.limit) }) { $1 },
                    cost: cost == Configuration.PolicyCost()
                        ? nil : Cost(default: cost.base, methods: cost.methods, paths: cost.paths),
                    precision: policy.concurrent ? nil : policy.precision.rawValue, concurrent: policy.concurrent,
                    lease: policy.concurrent ? "\(policy.window)" : nil, localFirst: policy.localFirst,
                    services: policy.scope.services, paths: policy.scope.paths, subjects: known(policy.name))
            }
    }

    static func heads(_ counted: Bool) -> [String] {
        ["POLICY", "LIMIT", "WINDOW", "KEY", "MODE", "TIERS", "COST", "PRECISION", "COVERS"]
            + (counted ? ["SUBJECTS"] : [])
    }
}

extension PolicyListing.Row {
    func cells(_ counted: Bool) -> [String] {
        let covers =
            (services.isEmpty ? [] : ["services \(services.joined(separator: " "))"])
            + (paths.isEmpty ? [] : ["paths \(paths.joined(separator: " "))"])
        let costs = cost.map { cost in
            (["\(cost.default)"] + (Self.listed(cost.methods) + Self.listed(cost.paths)).map { "\($0)" })
                .joined(separator: " ")
        }
        let row = [
            name, "\(limit)", window ?? "at once", key, mode,
            tiers.isEmpty ? "-" : Self.listed(tiers).joined(separator: " "), costs ?? "1",
            (precision ?? lease.map { "lease \($0)" } ?? "-") + (localFirst ? ", local first" : ""),
            covers.isEmpty ? "everything" : covers.joined(separator: ", "),
        ]
        return row + (counted ? ["\(subjects ?? 0)"] : [])
    }

    private static func listed(_ table: [String: Int]) -> [String] {
        table.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
    }
}
