// `sluice limits`: the policies of a configuration, and what Redis knows of whom they count.

import Admin
import ArgumentParser
import Configuration
import FoundationEssentials
import Gateway
import LinuxIO
import Membership
import Primitives
import RateLimiting

struct Limits: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show limits, who uses them up, and what others would do.",
        discussion: """
            Policies are those of --config. What is used of them is read from Redis itself, the configuration's or that \
            of --redis; no node is asked, and nothing but `reset` changes anything. docs/redis.md has the same in \
            redis-cli's words.

            Subjects are written as in Redis: ip:203.0.113.7 (or the address alone), user:42, org:acme, key:ID, \
            service:NAME, header:NAME:VALUE, global.
            """,
        subcommands: [List.self, Get.self, Most.self, Reset.self, Simulate.self], defaultSubcommand: List.self)

    /// Where policies and windows are.
    struct Place: ParsableArguments {
        @Option(name: .shortAndLong, help: "A node's configuration, for its policies and its Redis.")
        var config: String?

        @Option(
            name: .customLong("set"),
            help: ArgumentHelp(
                "Sets a key of the configuration, as `sluice run` does. May be repeated.", valueName: "key=value"))
        var overrides: [String] = []

        @Option(
            help: ArgumentHelp(
                "Where Redis is, as rateLimit.redisURL says it. Without --config, policies are those that windows name.",
                valueName: "url"))
        var redis: String?

        @Flag(help: "Print JSON.") var json = false

        func validate() throws {
            if config == nil, !overrides.isEmpty { throw ValidationError("--set needs --config FILE") }
        }

        func loaded() throws -> Configuration? { try Limits.loaded(config, overrides) }

        func store(_ configuration: Configuration?) throws -> LimitStore {
            guard config != nil || redis != nil else {
                throw ValidationError("say where Redis is: --config FILE or --redis URL")
            }
            let url =
                try redis.map { try given("--redis", $0) { text throws(Invalid) in try RedisURL(parsing: text) } }
                ?? configuration?.rateLimit?.redisURL
            guard let url else {
                throw refusal(
                    "\(config ?? "") has no rateLimit.redisURL: without Redis limits are in the memory of each node; "
                        + "its admin listener counts them (GET /api/limits)")
            }
            var store = LimitStore(servers: try told { try RedisServers(url) })
            for policy in configuration?.rateLimit?.policies ?? [] {
                if policy.concurrent { store.leases[policy.name] = policy.window }
                store.modes[policy.name] = policy.mode == .shadow ? .shadow : .enforce
            }
            return store
        }
    }

    /// The configuration that counts: that of the file or, where nodes follow the cluster's, the one in force there.
    static func loaded(_ config: String?, _ overrides: [String]) throws -> Configuration? {
        guard let config else { return nil }
        let source = ConfigurationSource(
            path: config, overrides: overrides, environment: ProcessInfo.processInfo.environment)
        func parsed<T>(_ body: () throws(ConfigurationErrors) -> T) throws -> T {
            do throws(ConfigurationErrors) {
                return try body()
            } catch {
                printError(error.description)
                throw ExitCode(1)
            }
        }
        let (own, text) = try parsed { () throws(ConfigurationErrors) in
            let text = try source.read()
            return (try source.parse(text), text)
        }
        guard own.config.from == .redis, let url = own.rateLimit?.redisURL else { return own }
        guard let current = try told({ try inForce(url) }) else { return own }
        return try parsed { () throws(ConfigurationErrors) in
            try source.parse(current.text, named: "version \(current.version)", over: text)
        }
    }

    /// What all nodes that follow go by; `nil` where nobody has given them anything.
    private static func inForce(_ url: RedisURL) throws -> ConfigurationVersion? {
        let session = try RedisSession(url)
        guard let number = try session.ask("GET", session.placed("sluice:config:current")).text else { return nil }
        let json = try session.ask("HGET", session.placed("sluice:config:versions"), number).text ?? ""
        guard let version = ConfigurationVersion(json: Array(json.utf8)) else {
            throw RedisSession.Failure(description: "version \(number), which is in force, is not in Redis")
        }
        return version
    }

    /// The policies of the configuration, those of tiers behind the one that they stand in for; `nil` without one.
    static func policies(_ configuration: Configuration?, named name: String?) throws -> [Policy]? {
        guard let configuration else { return nil }
        let all = configuration.rateLimit.map { Node.policies($0) } ?? []
        guard let name else { return all }
        let found = all.filter { $0.name == name }
        guard !found.isEmpty else {
            let names = all.filter { $0.tier == nil }.map(\.name)
            let near = suggestion(for: name, among: names).map { " (did you mean \($0)?)" } ?? ""
            let known = names.isEmpty ? "there are no policies" : "policies are \(names.joined(separator: ", "))"
            throw refusal("there is no policy \(name)\(near): \(known)")
        }
        return found
    }

    /// A subject as somebody has written it.
    static func subject(_ text: String) throws -> LimitSubject {
        do throws(LimitSubject.NotOne) {
            return try LimitSubject(parsing: text)
        } catch {
            let near =
                text.contains(":")
                ? suggestion(for: String(text.prefix { $0 != ":" }), among: LimitSubject.kinds) : nil
            throw refusal("\(error)\(near.map { " (did you mean \($0):…?)" } ?? "")")
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the policies (the default).",
            discussion: """
                With --redis and no --config: those that Redis has windows of now, and of how many subjects. --subjects \
                counts them for a configuration too; that looks through all keys, step by step.
                """)

        @OptionGroup var place: Place
        @Flag(help: "Also count the subjects that Redis knows now.") var subjects = false

        func run() throws {
            let configuration = try place.loaded()
            guard let configuration else { return try listKnown(try place.store(nil)) }
            var counts: [Count: Int]?
            if subjects { counts = try Count.all(try place.store(configuration)) }
            let listing = PolicyListing(configuration, counts)
            if place.json { return try printJSON(listing) }
            guard !listing.policies.isEmpty else {
                return print("no limits: rateLimit has no requestsPerSecond and no policies")
            }
            print(table([PolicyListing.heads(counts != nil)] + listing.policies.map { $0.cells(counts != nil) }))
        }

        private struct Known: Encodable {
            struct Row: Encodable {
                var name: String
                var limit: Int
                var window: String?
                var precision: String?
                var subjects: Int
            }
            var policies: [Row]
        }

        private func listKnown(_ store: LimitStore) throws {
            let rows = try Count.all(store).map { count, subjects in
                Known.Row(
                    name: count.policy, limit: count.limit, window: count.window.map { "\($0)" },
                    precision: count.form == .leases ? nil : count.form == .buckets ? "buckets" : "exact",
                    subjects: subjects)
            }.sorted { ($0.name, $0.limit) < ($1.name, $1.limit) }
            if place.json { return try printJSON(Known(policies: rows)) }
            guard !rows.isEmpty else { return print("Redis has no windows now") }
            print(
                table(
                    [["POLICY", "LIMIT", "WINDOW", "PRECISION", "SUBJECTS"]]
                        + rows.map {
                            [$0.name, "\($0.limit)", $0.window ?? "at once", $0.precision ?? "-", "\($0.subjects)"]
                        }))
        }
    }

    /// A limit whose subjects are counted.
    struct Count: Hashable {
        var policy: String
        var limit: Int
        var window: TimeSpan?
        var form: PolicyForm

        init(_ key: LimitKey) { (policy, limit, window, form) = (key.policy, key.limit, key.window, key.form) }

        static func all(_ store: LimitStore) throws -> [Count: Int] {
            var counts: [Count: Int] = [:]
            try told {
                try store.scan(LimitKey.pattern(onCluster: store.servers.isCluster)) { keys, _, _ in
                    for key in keys { counts[Count(key), default: 0] += 1 }
                }
            }
            return counts
        }
    }

    struct Get: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show what a subject has used of each limit.",
            discussion: """
                With --config: of every policy that counts such subjects. With --redis alone: of every window that \
                Redis has of it, which looks through all keys, step by step. Times are those of Redis's clock.
                """)

        @Argument(help: "Whom: ip:203.0.113.7, user:42, global, …") var subject: String
        @OptionGroup var place: Place
        @Option(help: ArgumentHelp("Only of this policy.", valueName: "name")) var policy: String?

        private struct Answer: Encodable {
            var subject: String
            var policies: [UsageRow]
        }

        func run() throws {
            let subject = try Limits.subject(subject)
            let configuration = try place.loaded()
            let policies = try Limits.policies(configuration, named: policy)
            let store = try place.store(configuration)
            let keys = try Limits.keys(of: subject, policies, policy, configuration, store)
            var rows: [UsageRow] = []
            var strange: Set<LimitKey> = []
            for (key, tier, isOwn) in keys {
                let (found, time) = try told { try store.usage(of: key) }
                guard let usage = found else {
                    strange.insert(key)
                    continue
                }
                // A window of a tier, or of somebody who showed no credential, is told of where there is one.
                if usage.used > 0 || isOwn { rows.append(UsageRow(usage, tier: tier, name: store.text(key), at: time)) }
            }
            store.tell(strange: strange)
            if place.json { return try printJSON(Answer(subject: subject.description, policies: rows)) }
            guard !rows.isEmpty else { return print("no policy has counted \(subject) lately") }
            print(table([UsageRow.heads] + rows.map(\.cells)))
        }
    }

    /// The windows that a subject has or could have.
    static func keys(
        of subject: LimitSubject, _ policies: [Policy]?, _ name: String?, _ configuration: Configuration?,
        _ store: LimitStore
    ) throws -> [(key: LimitKey, tier: String?, isOwn: Bool)] {
        if let policies {
            if subject.kind == .service, let services = configuration?.services.map(\.name) {
                let service = String(subject.description.dropFirst("service:".count))
                if !services.contains(service) {
                    let near = suggestion(for: service, among: services).map { " (did you mean \($0)?)" } ?? ""
                    throw refusal("there is no service \(service)\(near)")
                }
            }
            let counting = policies.filter { subject.isCounted(by: $0.key) }
            guard !counting.isEmpty else {
                let all = policies.filter { $0.tier == nil }.map { "\($0.name) by \($0.key)" }
                throw refusal(
                    "no policy counts \(subject): \(all.isEmpty ? "there are none" : all.joined(separator: ", "))")
            }
            // Tiers with the same limit share their windows.
            var seen: Set<LimitKey> = []
            return counting.compactMap { policy in
                let key = LimitKey(policy, subject: subject.description)
                guard seen.insert(key).inserted else { return nil }
                return (key, policy.tier, policy.tier == nil && subject.isOwn(of: policy.key))
            }
        }
        return try known(of: subject, name, store).map { ($0, nil, true) }
    }

    /// The windows that Redis has of a subject.
    private static func known(of subject: LimitSubject, _ name: String?, _ store: LimitStore) throws -> [LimitKey] {
        var found: Set<LimitKey> = []
        let pattern = LimitKey.pattern(policy: name, subject: subject, onCluster: store.servers.isCluster)
        try told {
            try store.scan(pattern) { keys, _, _ in
                found.formUnion(keys.filter { $0.subject == subject.description && (name == nil || $0.policy == name) })
            }
        }
        return found.sorted { ($0.policy, $0.limit) < ($1.policy, $1.limit) }
    }

    /// Windows of limits that these policies had before: nodes take them along, so they fill a new window again.
    private static func former(
        _ current: [LimitKey], of subject: LimitSubject, _ name: String?, _ store: LimitStore
    ) throws -> [LimitKey] {
        let names = Set(current.map(\.policy))
        return try known(of: subject, name, store).filter { names.contains($0.policy) && !current.contains($0) }
    }

    struct Reset: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Give a subject new windows.",
            discussion: """
                Deletes its keys in Redis, those of limits that a policy had before among them, which are looked for \
                among all keys, step by step. Nodes that remember a window as full find out within a second. Requests \
                that run just now count again as soon as their leases are renewed.
                """)

        @Argument(help: "Whom: ip:203.0.113.7, user:42, global, …") var subject: String
        @OptionGroup var place: Place
        @Option(help: ArgumentHelp("Only of this policy.", valueName: "name")) var policy: String?

        private struct Answer: Encodable {
            struct Row: Encodable {
                var key: String
                var policy: String
                /// Absent where the key held something that is no window.
                var used: Int?
                var limit: Int
            }
            var subject: String
            var deleted: [Row]
        }

        func run() throws {
            let subject = try Limits.subject(subject)
            let configuration = try place.loaded()
            let policies = try Limits.policies(configuration, named: policy)
            let store = try place.store(configuration)
            var answer = Answer(subject: subject.description, deleted: [])
            var keys = try Limits.keys(of: subject, policies, policy, configuration, store).map(\.key)
            // First, so that no request takes them along in between.
            if policies != nil { keys = try Limits.former(keys, of: subject, policy, store) + keys }
            for key in keys {
                let (usage, _) = try told { try store.usage(of: key) }
                guard try told({ try store.delete(key) }) else { continue }
                answer.deleted.append(
                    Answer.Row(key: store.text(key), policy: key.policy, used: usage?.used, limit: key.limit))
            }
            if place.json { return try printJSON(answer) }
            for row in answer.deleted {
                let used = row.used.map { "\($0) of \(row.limit) used" } ?? "it held something that is no window"
                print("deleted \(row.key) (\(used))")
            }
            if answer.deleted.isEmpty { print("nothing to reset: Redis has no window of \(subject)") }
        }
    }
}

/// An option's value, read as a file's would be.
func given<T>(_ option: String, _ text: String, _ parse: (String) throws(Invalid) -> T) throws -> T {
    do throws(Invalid) {
        return try parse(text)
    } catch {
        throw refusal("\(option): \(error)")
    }
}

/// What somebody got wrong, on standard error.
func refusal(_ text: String) -> any Error {
    printError("sluice: \(text)")
    return ExitCode(1)
}

/// What is used of a limit, as a row.
struct UsageRow: Encodable {
    var policy: String
    var tier: String?
    var limit: Int
    /// Absent where requests at once are counted.
    var window: String?
    var used: Int
    var remaining: Int
    /// When the first of the slots that are taken frees, by Redis's clock.
    var nextSlotFrees: String?
    var time: String
    var key: String
    private var wait: TimeSpan?

    enum CodingKeys: CodingKey { case policy, tier, limit, window, used, remaining, nextSlotFrees, time, key }

    init(_ usage: LimitStore.Usage, tier: String?, name: String, at now: RedisTime) {
        policy = usage.key.policy
        self.tier = tier
        limit = usage.key.limit
        window = usage.key.window.map { "\($0)" }
        used = usage.used
        remaining = usage.remaining
        nextSlotFrees = usage.freesAt.map { SystemClock.timestamp(microseconds: $0.microseconds) }
        wait = usage.freesAt.map { $0 - now }
        time = SystemClock.timestamp(microseconds: now.microseconds)
        key = name
    }

    static let heads = ["POLICY", "TIER", "LIMIT", "WINDOW", "USED", "REMAINING", "NEXT SLOT FREES", "REDIS TIME"]

    var cells: [String] {
        [
            policy, tier ?? "-", "\(limit)", window ?? "at once", "\(used)", "\(remaining)",
            wait.map { "in \(seconds($0))" } ?? (window == nil && used > 0 ? "when one ends" : "-"), time,
        ]
    }
}

/// For people: `0.4 s`, `12 m 5 s`, `23 h 59 m`; rounded up.
func seconds(_ span: TimeSpan) -> String {
    let tenths = max(0, (span.milliseconds + 99) / 100)
    if tenths < 1_200 { return "\(tenths / 10).\(tenths % 10) s" }
    let seconds = (tenths + 9) / 10
    if seconds < 7_200 { return "\(seconds / 60) m \(seconds % 60) s" }
    let minutes = (seconds + 59) / 60
    return "\(minutes / 60) h \(minutes % 60) m"
}
