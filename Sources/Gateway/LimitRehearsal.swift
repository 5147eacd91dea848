// What limits would have made of requests that are long answered: the routes, the policies' own choice of whom they count
// and what it costs, and the limiter as a node has it that decides alone, which remembers each admission exactly.

package import Configuration
import HTTP1
import Identity
package import Primitives
package import RateLimiting

/// A policy that is tried, and what it covers.
package struct RehearsedPolicy: Sendable {
    package var policy: Policy
    package var scope: Configuration.PolicyScope
    package var cost: Configuration.PolicyCost

    package init(
        _ policy: Policy, scope: Configuration.PolicyScope = Configuration.PolicyScope(services: [], paths: []),
        cost: Configuration.PolicyCost = Configuration.PolicyCost()
    ) {
        self.policy = policy
        self.scope = scope
        self.cost = cost
    }

    /// Those of a configuration. A log does not tell tiers: everyone has the limit of no tier.
    package static func all(of limit: Configuration.RateLimit) -> [RehearsedPolicy] {
        var list = Node.policies(limit).filter { $0.tier == nil }.map { RehearsedPolicy($0) }
        let offset = list.count - limit.policies.count
        for (index, policy) in limit.policies.enumerated() {
            list[offset + index].scope = policy.scope
            list[offset + index].cost = policy.cost
        }
        return list
    }

    /// The same with other numbers, and always enforced: to see what it would do.
    package func changed(limit: Int?, window: TimeSpan?, key: PolicyKey?) -> RehearsedPolicy {
        var copy = self
        let limit = limit ?? policy.limit
        copy.policy = Policy(
            name: policy.name, limit: limit, window: window ?? policy.window, burst: limit, key: key ?? policy.key,
            form: policy.form, costMax: policy.costMax)
        return copy
    }

    /// Why a log does not tell enough for it; `nil` where it does.
    package var obstacle: String? {
        if policy.form == .leases { return "a log does not tell what runs at once" }
        switch policy.key {
        case .ip, .user, .service, .global: return nil
        case .org: return "a log does not name organisations"
        case .apiKey: return "a log does not name API keys"
        case .header(let name): return "a log does not have the header \(name)"
        }
    }
}

package final class LimitRehearsal {
    /// What became of a subject of one policy.
    package struct Tally: Sendable {
        package var requests = 0
        package var refused = 0
        /// Where the first refusal is: the line and its time.
        package var first: (line: Int, time: Int64)?
    }

    /// Requests that no policy has decided, by reason.
    package struct Others: Equatable, Sendable {
        /// No service has the path.
        package var unrouted = 0
        /// No policy covers them.
        package var uncovered = 0
        /// The gateway answers before any limit: no request that can be read, credentials that do not hold.
        package var unlimited = 0
    }

    package let policies: [Policy]
    private let keys: [WindowKey]
    private let table: PolicyTable
    private let routes: RouteTable
    private var machine: WindowMachine
    private let requester = Nobody()
    private var head = RequestHead()
    private var bytes: [UInt8] = []
    private var subjects: [SubjectKey] = []
    private var costs: [UInt16] = []
    private var tallies: [SubjectKey: Tally] = [:]

    package private(set) var totals: [Tally]
    package private(set) var others = Others()
    /// Requests that policies have decided, and those that one at least has refused.
    package private(set) var requests = 0
    package private(set) var refused = 0
    /// The times of the first and of the latest line.
    package private(set) var span: (from: Int64, to: Int64)?
    /// Lines that are older than one before them: taken as of the same time.
    package private(set) var disordered = 0
    /// Subjects with few refusals that were forgotten for lack of room; what is said of them begins anew.
    package private(set) var forgotten = 0

    private let subjectsMax: Int

    /// A decision needs no answer from anyone.
    private final class Nobody: LimitRequester {
        func limitDecided(token: UInt64, verdict: Verdict) {}
    }

    /// - Parameters:
    ///   - policies: 1...`LimiterContext.policiesMax`.
    ///   - configuration: for its services; without one there is one that has every path.
    ///   - subjectsMax: of whom totals are kept.
    package init(
        _ policies: [RehearsedPolicy], _ configuration: Configuration?, seed: UInt64, subjectsMax: Int = 1 << 19
    ) {
        self.subjectsMax = max(2, subjectsMax)
        let services = configuration?.services
        let names = services?.map(\.name) ?? ["any"]
        let rules = policies.map(\.policy)
        self.policies = rules
        routes = RouteTable(prefixes: services?.map { Service.prefix(of: $0.path) } ?? [[]])
        keys = rules.map { WindowKey($0, services: names) }
        table = PolicyTable(
            rules, scopes: policies.map(\.scope), costs: policies.map(\.cost), services: names)
        totals = rules.map { _ in Tally() }
        // Never connected: with one node alive, its share is the whole limit.
        machine = WindowMachine(
            LimiterContext(
                policies: rules, services: names, lossRule: .share, timeout: .seconds(1), boot: 0, seed: seed,
                rehearses: true), worker: 0)
    }

    /// Decides a request. Lines come in the order of the log.
    package func take(_ entry: AccessLogEntry, line: Int) {
        if let span, entry.time < span.to { disordered += 1 }
        let time = max(entry.time, span?.to ?? entry.time)
        span = (span?.from ?? time, time)
        guard !entry.isUnlimited, !entry.request.isEmpty else {
            others.unlimited += 1
            return
        }
        bytes.removeAll(keepingCapacity: true)
        bytes += entry.request
        bytes += Array(" HTTP/1.1\r\nHost: log\r\n\r\n".utf8)
        guard case .complete = head.parse(bytes.span, limits: HeadLimits(requestLineBytes: 0)) else {
            others.unlimited += 1
            return
        }
        guard let (service, _) = routes.service(of: bytes.span.extracting(head.path)) else {
            others.unrouted += 1
            return
        }
        table.collect(
            head, bytes.span, service: service, client: entry.client, caller: caller(entry), into: &subjects)
        if table.isWeighted { table.weigh(head, bytes.span, &subjects, into: &costs) }
        guard !subjects.isEmpty else {
            others.uncovered += 1
            return
        }
        let now = MonotonicTime(nanoseconds: saturatingMultiply(time, 1_000))
        guard case .decided(let report) = machine.ask(all: subjects, costs: costs, requester, token: 0, at: now) else {
            return
        }
        requests += 1
        if report.isRefused { refused += 1 }
        // What another policy is known to refuse, a node asks no shadow.
        for index in 0..<report.count where !report.isRefused || !report[index].isShadow {
            note(subjects[index], isRefused: report[index].isRefused, line, time)
        }
    }

    private func caller(_ entry: AccessLogEntry) -> Caller? {
        guard let identity = entry.identity, identity.hasPrefix("user:") else { return nil }
        return Caller(CallerClaims(user: Self.unescaped(identity.dropFirst(5))), tiers: [], forward: ForwardNames())
    }

    /// The log writes `%20` for what would break its line.
    private static func unescaped(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.count >= 2,
                let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private func note(_ subject: SubjectKey, isRefused: Bool, _ line: Int, _ time: Int64) {
        let policy = Int(subject.policy)
        if tallies.count >= subjectsMax, tallies[subject] == nil { forgetHalf() }
        func add(_ tally: inout Tally) {
            tally.requests += 1
            guard isRefused else { return }
            tally.refused += 1
            tally.first = tally.first ?? (line, time)
        }
        add(&totals[policy])
        add(&tallies[subject, default: Tally()])
    }

    /// Makes room: those with the fewest refusals go.
    private func forgetHalf() {
        let ordered = tallies.sorted { ($0.value.refused, $0.value.requests) > ($1.value.refused, $1.value.requests) }
        forgotten += ordered.count - ordered.count / 2
        tallies = Dictionary(uniqueKeysWithValues: ordered.prefix(ordered.count / 2).map { ($0.key, $0.value) })
    }

    package struct Row: Sendable {
        package var policy: String
        package var subject: String
        package var tally: Tally
    }

    /// Who would have been refused, the most often first.
    package func refusedMost(_ count: Int) -> [Row] {
        let found = tallies.filter { $0.value.refused > 0 }.map { subject, tally in
            Row(policy: policies[Int(subject.policy)].name, subject: text(subject), tally: tally)
        }
        return Array(
            found.sorted {
                ($1.tally.refused, $0.policy, $0.subject) < ($0.tally.refused, $1.policy, $1.subject)
            }.prefix(max(0, count)))
    }

    /// Subjects of a policy, and those of them that would have been refused.
    package func subjects(of policy: Int) -> (all: Int, refused: Int) {
        tallies.reduce((0, 0)) { sum, entry in
            guard Int(entry.key.policy) == policy else { return sum }
            return (sum.0 + 1, sum.1 + (entry.value.refused > 0 ? 1 : 0))
        }
    }

    private func text(_ subject: SubjectKey) -> String {
        LimitKey(keys[Int(subject.policy)].text(subject))?.subject ?? "\(subject)"
    }
}
