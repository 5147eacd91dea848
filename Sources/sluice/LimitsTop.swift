// `sluice limits top`: who uses most of a limit, from Redis, and who is refused most, from nodes that are asked.

import ArgumentParser
import Configuration
import FoundationEssentials
import LinuxIO
import Primitives
import RateLimiting

extension Limits {
    struct Most: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "top",
            abstract: "Show who uses most of a limit, and who is refused.",
            discussion: """
                Looks through all windows in Redis, step by step (SCAN), and tells the subjects with the largest part of \
                their limit in use. Whose window is full is refused until a slot frees, unless the policy is in \
                shadow mode, which --config tells. How often somebody was refused, only nodes know: \
                --admin asks them, each for whom it refused most lately.
                """)

        @OptionGroup var place: Place
        @Option(help: ArgumentHelp("How many to show.", valueName: "count")) var limit = 20
        @Option(help: ArgumentHelp("Only of this policy.", valueName: "name")) var policy: String?
        @Option(
            help: ArgumentHelp(
                "The admin listener of a node, to be asked whom it has refused. May be repeated.",
                valueName: "host:port"))
        var admin: [String] = []
        @Option(
            help: ArgumentHelp(
                "What the admin listener wants to be shown. Default: as for `sluice backends`.", valueName: "token"))
        var token: String?

        func validate() throws {
            guard (1...10_000).contains(limit) else { throw ValidationError("--limit: write a number in 1...10000") }
        }

        private struct Answer: Encodable {
            struct Row: Encodable {
                var subject: String
                var policy: String
                var limit: Int
                var window: String?
                var used: Int
                /// Of the limit, 0...1.
                var share: Double
                var isFull: Bool
                /// Whether whoever asks is refused while it is full; absent where no configuration is known.
                var mode: String?
                var nextSlotFrees: String?
                var key: String
            }
            /// Keys in Redis, all of them looked at.
            var keys: Int
            var subjects: [Row]
            /// Absent where no node was asked.
            var refused: [Refused]?
        }

        struct Refused: Codable {
            var subject: String
            var policy: String
            /// Lately, at most; what is long past fades.
            var count: Int
        }

        func run() throws {
            let configuration = try place.loaded()
            _ = try Limits.policies(configuration, named: policy)
            let store = try place.store(configuration)
            var most = Leaders(countMax: limit)
            var strange: Set<LimitKey> = []
            let pattern = LimitKey.pattern(policy: policy, onCluster: store.servers.isCluster)
            let keys = try told {
                try store.scan(pattern) { keys, session, now in
                    let wanted = keys.filter { policy == nil || $0.policy == policy }
                    let usages = try store.usages(of: wanted, session, at: now) { strange.insert($0) }
                    for usage in usages { most.add(usage, at: now) }
                }
            }
            store.tell(strange: strange)
            let refused = admin.isEmpty ? nil : try refusedMost()
            if place.json { return try printJSON(answer(most, keys, refused, store)) }
            if most.rows.isEmpty {
                print("nobody has used anything of \(policy.map { "the limit \($0)" } ?? "a limit") lately")
            } else {
                print(table([Self.heads] + most.rows.map { Self.cells($0, store.modes[$0.usage.key.policy]) }))
            }
            guard let refused else { return }
            print("")
            guard !refused.isEmpty else { return print("the nodes that were asked have refused nobody lately") }
            print(table([["REFUSED", "POLICY", "TIMES"]] + refused.map { [$0.subject, $0.policy, "\($0.count)"] }))
        }

        private func answer(_ most: Leaders, _ keys: Int, _ refused: [Refused]?, _ store: LimitStore) -> Answer {
            Answer(
                keys: keys,
                subjects: most.rows.map { row in
                    let key = row.usage.key
                    return Answer.Row(
                        subject: key.subject, policy: key.policy, limit: key.limit,
                        window: key.window.map { "\($0)" }, used: row.usage.used, share: row.usage.share,
                        isFull: row.usage.isFull,
                        mode: store.modes[key.policy].map { $0 == .shadow ? "shadow" : "enforce" },
                        nextSlotFrees: row.usage.freesAt.map {
                            SystemClock.timestamp(microseconds: $0.microseconds)
                        }, key: store.text(key))
                }, refused: refused)
        }

        private static let heads = ["SUBJECT", "POLICY", "LIMIT", "WINDOW", "USED", "SHARE", "STATE"]

        private static func cells(_ row: Leaders.Row, _ mode: PolicyMode?) -> [String] {
            let key = row.usage.key
            let frees = row.usage.freesAt.map { "next slot in \(seconds($0 - row.time))" } ?? "until one ends"
            return [
                key.subject, key.policy, "\(key.limit)", key.window.map { "\($0)" } ?? "at once",
                "\(row.usage.used)", "\(row.usage.used * 100 / max(1, key.limit)) %",
                !row.usage.isFull ? "passes" : mode == .shadow ? "full (shadow), \(frees)" : "refused, \(frees)",
            ]
        }

        private struct Overview: Decodable { var refused: [Refused] }

        private func refusedMost() throws -> [Refused] {
            var counts: [String: Refused] = [:]
            for address in admin {
                let client = try AdminOptions.client(admin: address, token: token)
                let body = try told { try client.ask("GET", "/api/overview?points=1") }
                for row in try decoded(Overview.self, body).refused where policy == nil || row.policy == policy {
                    counts[
                        "\(row.policy) \(row.subject)",
                        default: Refused(subject: row.subject, policy: row.policy, count: 0)
                    ]
                    .count += row.count
                }
            }
            let ordered = counts.values.sorted { ($1.count, $0.subject) < ($0.count, $1.subject) }
            return Array(ordered.prefix(limit))
        }
    }

    /// Those with the largest part of their limit in use, so far.
    struct Leaders {
        struct Row {
            var usage: LimitStore.Usage
            var time: RedisTime
        }

        private let countMax: Int
        private(set) var rows: [Row] = []

        init(countMax: Int) { self.countMax = countMax }

        mutating func add(_ usage: LimitStore.Usage, at time: RedisTime) {
            guard usage.used > 0 else { return }
            if rows.count == countMax, let last = rows.last, !Self.isBefore(usage, last.usage) { return }
            rows.removeAll { $0.usage.key == usage.key }
            let place = rows.firstIndex { Self.isBefore(usage, $0.usage) } ?? rows.count
            rows.insert(Row(usage: usage, time: time), at: place)
            if rows.count > countMax { rows.removeLast() }
        }

        private static func isBefore(_ a: LimitStore.Usage, _ b: LimitStore.Usage) -> Bool {
            if a.share != b.share { return a.share > b.share }
            if a.used != b.used { return a.used > b.used }
            return (a.key.subject, a.key.policy) < (b.key.subject, b.key.policy)
        }
    }
}
