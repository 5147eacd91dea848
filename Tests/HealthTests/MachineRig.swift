import Health
import Membership
import Primitives

/// The two backends that a rig watches.
enum Watched {
    static let users = "users"
    static let first = BackendKey(service: users, url: "http://a:1")
    static let second = BackendKey(service: users, url: "http://b:1")
}

private let users = Watched.users
private let first = Watched.first
private let second = Watched.second

/// One node's machine in the hands of a test, which plays Redis, the prober and the traffic.
struct MachineRig {
    var machine: HealthMachine
    var time = TimeSpan.zero
    var actions: [HealthAction] = []
    /// Probes that were asked for and not answered.
    var pending: [(key: BackendKey, attempt: UInt64)] = []

    var now: HealthMoment { moment(time) }

    init(
        _ name: String = "me", boot: UInt64 = 1, urls: [String] = [first.url, second.url],
        _ adjust: (inout HealthSettings) -> Void = { _ in }
    ) {
        var settings = HealthSettings()
        adjust(&settings)
        machine = HealthMachine(
            node: node(name), boot: BootID(boot),
            services: [WatchedService(name: users, settings: settings, urls: urls)], seed: 5, now: moment(.zero))
    }

    /// Lets the machine take an input, and notes the probes that it asks for.
    mutating func give(_ input: (inout HealthMachine, HealthMoment, inout [HealthAction]) -> Void) {
        var new: [HealthAction] = []
        input(&machine, now, &new)
        for case .probe(let key, let attempt, _) in new { pending.append((key, attempt)) }
        actions += new
    }

    /// Does what becomes due up to now plus `span`, answering all probes by `answer`.
    mutating func pass(_ span: TimeSpan, _ answer: (BackendKey) -> ProbeResult = { _ in .succeeded }) {
        let end = time + span
        while true {
            let due = max(machine.nextDeadline - moment(.zero).monotonic, time)
            if due > end { break }
            time = due
            give { $0.tick(at: $1, into: &$2) }
            settle(answer)
        }
        time = end
    }

    mutating func settle(_ answer: (BackendKey) -> ProbeResult) {
        while let probe = pending.popLast() {
            give { $0.probeFinished(probe.key, attempt: probe.attempt, answer(probe.key), at: $1, into: &$2) }
        }
    }

    mutating func join(live: [String] = [], fields: [(field: String, value: [UInt8])] = []) {
        give { $0.redisRestored(at: $1, into: &$2) }
        give { $0.liveNodesChanged(live.map(node), at: $1, into: &$2) }
        give { $0.snapshot(service: users, fields, at: $1, into: &$2) }
    }

    mutating func hear(_ author: String, _ key: BackendKey, _ verdict: HealthVerdict) {
        give { $0.news(HealthNews(backend: key, node: node(author), verdict: verdict), at: $1, into: &$2) }
    }

    mutating func fail(_ key: BackendKey, _ times: Int = 3) {
        for _ in 0..<times { give { $0.trafficFailed(key, .status(502), at: $1, into: &$2) } }
    }

    func isAvailable(_ key: BackendKey) -> Bool { machine.condition(of: key)?.isAvailable ?? false }

    /// Availability changes since the start, in order.
    var switches: [String] {
        actions.compactMap { action in
            if case .availabilityChanged(let key, let available, _) = action {
                return "\(key.url) \(available ? "on" : "off")"
            }
            return nil
        }
    }

    var published: [HealthNews] {
        actions.compactMap { action in
            if case .publish(let news) = action { return news }
            return nil
        }
    }

    var reports: [ProbeReport] {
        actions.compactMap { action in
            if case .report(let report) = action { return report }
            return nil
        }
    }

    var removed: [String] {
        actions.flatMap { action in
            if case .remove(_, let fields) = action { return fields }
            return []
        }
    }
}

func field(_ key: BackendKey, _ author: String, _ verdict: HealthVerdict) -> (field: String, value: [UInt8]) {
    (HealthKeys.field(url: key.url, node: node(author)), Array(verdict.json.utf8))
}

func firstIsDead(_ key: BackendKey) -> ProbeResult { key == first ? .failed(refused) : .succeeded }
