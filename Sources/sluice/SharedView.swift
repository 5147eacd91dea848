// What the nodes share, read from Redis itself and written there, where no node is asked.

import Admin
import Configuration
import FoundationEssentials
import Gateway
import Health
import LinuxIO
import Membership
import Primitives

struct SharedView {
    /// A service, and of its backends those that are known.
    struct Subject {
        var service: String
        var urls: [String]
        var rules: ViewRules
    }

    let session: RedisSession
    /// That in force names the services; without one a service has to be named.
    let configuration: Configuration?

    private typealias Fields = [(field: String, value: [UInt8])]

    // MARK: Reading

    /// The backends as the living nodes' verdicts and the operators' words have them. What only a node knows is left out.
    func listing(service: String?) throws -> BackendListing {
        let words = try words()
        let live = try members().filter(\.isAlive).map(\.id)
        var rows: [BackendListing.Row] = []
        for subject in try subjects(service, words) { rows += try self.rows(subject, live, words) }
        return BackendListing(backends: rows)
    }

    private func rows(
        _ subject: Subject, _ live: [NodeID], _ words: [BackendKey: OperatorWord]
    ) throws -> [BackendListing.Row] {
        var tables: [String: VerdictTable] = [:]
        let now = SystemClock.monotonic()
        for (field, value) in try hash(HealthKeys.hash(service: subject.service)) {
            guard let (url, node) = try? HealthKeys.parse(field: field), let verdict = try? HealthVerdict(json: value)
            else { continue }
            _ = tables[url, default: VerdictTable()].merge(verdict, of: node, at: now)
        }
        var open: Set<String> = []
        for (_, value) in try hash(HealthKeys.breakers(service: subject.service)) {
            if let news = try? BreakerNews(json: value), news.number % 2 == 1 { open.insert(news.backend.url) }
        }
        let keys = subject.urls.map { BackendKey(service: subject.service, url: $0) }
        let votes = keys.map { (tables[$0.url] ?? VerdictTable()).count(live: live) }
        let said = keys.map { words[$0] }
        let conditions = HealthView.assess(votes, own: keys.map { _ in .up }, words: said, subject.rules)
        return keys.indices.map { index in
            let (key, table) = (keys[index], tables[keys[index].url] ?? VerdictTable())
            let word = said[index].flatMap { $0.word == .auto ? nil : $0 }
            let accusers = live.filter { table.verdict(of: $0)?.state == .down }
            let evidence = accusers.first.flatMap { node in table.verdict(of: node).map { "\(node): \($0.evidence)" } }
            let state =
                switch word?.word {
                case .drain: "draining"
                case .down: "down"
                case .up: "up"
                case .auto, nil: conditions[index].isAvailable ? "up" : "down"
                }
            let quorum = votes[index].downSince.dropFirst(subject.rules.quorum.needed(live: live.count) - 1).first
            let since = word?.at ?? (state == "down" ? quorum : nil)
            return BackendListing.Row(
                service: key.service, url: key.url, state: state, available: conditions[index].isAvailable,
                since: since.map(Self.text) ?? "-",
                reason: "\(conditions[index])" + (evidence.map { "; \($0)" } ?? ""),
                saidBy: word.map { [$0.by] } ?? accusers.map(\.text),
                votes: Dictionary(
                    uniqueKeysWithValues: live.map { ($0.text, (table.verdict(of: $0)?.state ?? .up).rawValue) }),
                operator: word.map { BackendListing.Word(word: $0.word.rawValue, by: $0.by, at: Self.text($0.at)) },
                breaker: open.contains(key.url) ? "open" : "closed")
        }
    }

    /// Who is or was lately in the cluster.
    func members() throws -> [Member] {
        let answers = try session.transaction([
            ["TIME"], ["ZRANGE", session.placed(MembershipKeys.nodes), "0", "-1", "WITHSCORES"],
            ["HGETALL", session.placed(MembershipKeys.info)],
        ])
        guard answers.count == 3, let seconds = answers[0].elements.first?.text.flatMap({ Int64($0) }) else {
            throw RedisSession.Failure(description: "an answer of another shape")
        }
        let micros = answers[0].elements.last?.text.flatMap { Int64($0) } ?? 0
        var infos: [NodeID: NodeInfo] = [:]
        for (name, json) in Self.pairs(answers[2]) {
            guard let node = try? NodeID(name) else { continue }
            infos[node] = try? NodeInfo(json: Array(json.utf8), assumed: .milliseconds(500))
        }
        var seen: [(id: NodeID, time: RedisTime)] = []
        for (name, score) in Self.pairs(answers[1]) {
            guard let node = try? NodeID(name), let score = Double(score), abs(score) < 9e15 else { continue }
            seen.append((node, RedisTime(microseconds: Int64(score))))
        }
        // The view of a node that has just come, which is not there itself.
        let own = try NodeID("sluice-command")
        var view = MembershipView(
            id: own, info: NodeInfo(address: "", boot: BootID(0), heartbeat: .milliseconds(500)))
        var events: [MembershipEvent] = []
        view.received(
            HeartbeatReply(
                serverTime: RedisTime(microseconds: seconds * 1_000_000 + micros), lastSeen: seen, info: infos,
                previousBoot: nil),
            at: SystemClock.monotonic(), into: &events)
        return view.members.filter { $0.id != own }
    }

    private func words() throws -> [BackendKey: OperatorWord] {
        var words: [BackendKey: OperatorWord] = [:]
        for (field, value) in try hash(HealthKeys.operators) {
            guard let key = try? HealthKeys.parse(operatorField: field) else { continue }
            words[key] = try? OperatorWord(json: value)
        }
        return words
    }

    /// The services of the configuration; without one, the service that is named, with whatever Redis knows of it.
    private func subjects(_ service: String?, _ words: [BackendKey: OperatorWord]) throws -> [Subject] {
        if let configuration {
            return configuration.services.filter { service == nil || $0.name == service }.map { configured in
                Subject(
                    service: configured.name, urls: configured.instances.map(\.url),
                    rules: ViewRules(
                        quorum: Quorum(configured.health.quorum), maxEjected: configured.health.maxEjected))
            }
        }
        guard let service else {
            throw RedisSession.Failure(
                description: "Redis alone does not tell which services there are: give --service or --config")
        }
        var urls = Set(words.keys.filter { $0.service == service }.map(\.url))
        for (field, _) in try hash(HealthKeys.hash(service: service)) {
            if let (url, _) = try? HealthKeys.parse(field: field) { urls.insert(url) }
        }
        for name in [HealthKeys.probes(service: service), HealthKeys.breakers(service: service)] {
            for (field, _) in try hash(name) { urls.insert(field) }
        }
        return [Subject(service: service, urls: urls.sorted(), rules: ViewRules(quorum: .majority))]
    }

    // MARK: Speaking

    /// Says a word of a backend, for all nodes. Returns of which, one a service at the most.
    func say(_ word: OperatorWord.Word, of url: String, service: String?, by: String) throws -> [BackendKey] {
        let keys = try meant(url, service)
        let hash = session.placed(HealthKeys.operators)
        for key in keys {
            let field = HealthKeys.operatorField(key)
            var said = OperatorWord(word, by: by, at: UnixTime(milliseconds: SystemClock.wallMicroseconds() / 1_000))
            // The later word counts, and clocks differ.
            if let before = try session.ask("HGET", hash, field).text {
                if let before = try? OperatorWord(json: Array(before.utf8)) { said.follow(before) }
            }
            _ = try session.transaction([
                ["HSET", hash, field, said.json], ["PUBLISH", HealthKeys.operators, HealthKeys.operatorsChanged],
            ])
        }
        return keys
    }

    /// The backends that a URL means, by their names among nodes: spelt as the configuration does.
    private func meant(_ url: String, _ service: String?) throws -> [BackendKey] {
        if let configuration {
            let keys = configuration.services.compactMap { candidate -> BackendKey? in
                guard service == nil || candidate.name == service else { return nil }
                return candidate.instances.first { $0.isMeant(by: url) }.map {
                    BackendKey(service: candidate.name, url: $0.url)
                }
            }
            guard keys.isEmpty else { return keys }
            let known = configuration.services.map { ($0.name, $0.instances.map(\.url)) }
            throw RedisSession.Failure(description: "\(UnknownBackend(service: service, known: known))")
        }
        guard let service else {
            throw RedisSession.Failure(
                description: "Redis alone does not tell whose backend it is: give --service or --config")
        }
        // Redis knows backends of which something was said, which need not be all.
        let known = try subjects(service, try words()).flatMap(\.urls)
        if let meant = known.first(where: { Configuration.Backend.areSame($0, url) }) {
            return [BackendKey(service: service, url: meant)]
        }
        if !known.isEmpty {
            printError(
                "sluice: Redis knows nothing of this backend yet; what it knows of \(service) is "
                    + known.joined(separator: ", "))
        }
        return [BackendKey(service: service, url: url)]
    }

    // MARK: Shapes

    private func hash(_ name: String) throws -> Fields {
        Self.pairs(try session.ask("HGETALL", session.placed(name))).map { ($0, Array($1.utf8)) }
    }

    private static func pairs(_ value: RedisSession.Value) -> [(String, String)] {
        let elements = value.elements
        return stride(from: 0, to: elements.count - 1, by: 2).compactMap { index in
            guard let field = elements[index].text, let value = elements[index + 1].text else { return nil }
            return (field, value)
        }
    }

    private static func text(_ time: UnixTime) -> String {
        SystemClock.timestamp(microseconds: saturatingMultiply(time.milliseconds, 1_000))
    }
}
