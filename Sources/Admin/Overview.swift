// The cluster at a glance, as this node sees it: one answer for the dashboard and for `sluice top`. Names are stable, and
// docs/openapi.yaml describes them. Durations are in milliseconds, rates a second.

import FoundationEssentials
import Gateway
import Health
import LinuxIO
import Membership
import Primitives
import RateLimiting
import RedisClient

/// Whether a node that runs has Redis.
package enum NodeState: String, Codable, Sendable {
    case alive
    /// Gone from Redis, and yet it takes connections.
    case cutOff

    init(_ member: Member) { self = member.isCutOff ? .cutOff : .alive }
}

package struct Overview: Codable, Sendable {
    package struct Node: Codable, Sendable {
        package var id: String
        package var address: String
        package var isSelf: Bool
        package var lastSeen: String
        /// `nil` from nodes that do not say.
        package var state: NodeState?
        package var requestsPerSecond: Double?
        package var errorsPerSecond: Double?
        package var p99: Double?
        package var version: String?
        /// As `/api/nodes` and the history of the cluster name it.
        package var configuration: String?
        /// Equal where what must be the same on all nodes is.
        package var shared: String?
    }

    package struct Itself: Codable, Sendable {
        package var id: String
        package var version: String
        package var configuration: String
        package var shared: String
        package var uptimeSeconds: Int
        package var ready: Bool
        package var cluster: String
        package var workers: Int
        package var connections: Int
        package var connectionsMax: Int
        package var residentBytes: Int
        package var cpuSeconds: Double
        package var openDescriptors: Int
        package var maxDescriptors: Int
        /// What an operator should look at; empty when all is well.
        package var warnings: [String]
    }

    package struct Rate: Codable, Sendable {
        package var requestsPerSecond: Double
        package var errorsPerSecond: Double
        package var limitedPerSecond: Double
        package var p50: Double
        package var p90: Double
        package var p99: Double

        init(_ rate: TrafficRate) {
            requestsPerSecond = tenths(rate.requests)
            errorsPerSecond = tenths(rate.errors)
            limitedPerSecond = tenths(rate.limited)
            p50 = milliseconds(rate.p50)
            p90 = milliseconds(rate.p90)
            p99 = milliseconds(rate.p99)
        }
    }

    package struct Service: Codable, Sendable {
        package var name: String
        package var path: String
        package var traffic: Rate
        package var backends: [Backend]
    }

    package struct Backend: Codable, Sendable {
        package var url: String
        package var state: String
        package var available: Bool
        package var breaker: String
        package var reason: String
        package var since: String
        package var lastError: String?
        package var inFlight: Int
        package var votesUp: Int
        package var votesDown: Int
        package var requestsPerSecond: Double
        package var errorsPerSecond: Double
    }

    package struct Limit: Codable, Sendable {
        package var name: String
        /// Whose limit it is, where tiers have their own.
        package var tier: String?
        package var limit: Int
        /// Absent where requests at once are counted.
        package var window: String?
        package var mode: String
        package var admitted: Int
        package var refused: Int
        package var admittedPerSecond: Double
        package var refusedPerSecond: Double
    }

    /// One whom a policy counts, and how much of the limit is used, over all nodes.
    package struct Subject: Codable, Sendable {
        package var subject: String
        package var policy: String
        package var tier: String?
        package var used: Int
        package var limit: Int
        package var window: String?

        init(_ use: LimitNews.Use) {
            subject = use.subject
            policy = use.policy
            tier = use.tier
            used = use.used
            limit = use.limit
            window = use.window
        }
    }

    package struct Refused: Codable, Sendable {
        package var subject: String
        package var policy: String
        package var count: Int
    }

    package struct Redis: Codable, Sendable {
        package var reached: Bool
        package var p50: Double
        package var p99: Double
        package var clockOffset: Double?
        package var clockBound: Double?
    }

    /// The last minutes, a point each two seconds: the names of `columns` say what stands in a point.
    package struct Series: Codable, Sendable {
        package var intervalSeconds: Int
        package var columns = ["time", "requests", "errors", "limited", "p50", "p90", "p99"]
        package var points: [[Double]]
    }

    package var node: Itself
    package var traffic: Rate
    package var nodes: [Node]
    package var services: [Service]
    package var limits: [Limit]
    /// Those nearest to their bound, first.
    package var subjects: [Subject]
    package var refused: [Refused]
    package var redis: Redis?
    package var series: Series
    package var time: String

    init(_ control: Control, points: Int) {
        let history = control.history
        let rows = control.backendRows
        let latest = history.points.last?.rate ?? TrafficRate()
        time = SystemClock.timestamp(microseconds: SystemClock.wallMicroseconds())
        node = Itself(control, rows)
        traffic = Rate(latest)
        nodes = Self.nodes(control, latest)
        services = control.services.map { service in
            Service(
                name: service.name, path: service.path,
                traffic: Rate(history.services[service.name] ?? TrafficRate()),
                backends: rows.filter { $0.status.backend.service == service.name }.map { row in
                    let rate = history.backends[row.status.backend] ?? (0, 0)
                    return Backend(row, requests: rate.requests, errors: rate.errors)
                })
        }
        let status = control.limitStatus
        limits = status.policies.enumerated().map { index, policy in
            let rate = index < history.policies.count ? history.policies[index] : (admitted: 0, refused: 0)
            return Limit(
                name: policy.name, tier: policy.tier, limit: policy.limit,
                window: policy.form == .leases ? nil : "\(policy.window)",
                mode: policy.mode == .shadow ? "shadow" : "enforce", admitted: status.admitted(by: index),
                refused: status.refused(by: index), admittedPerSecond: tenths(rate.admitted),
                refusedPerSecond: tenths(rate.refused))
        }
        let picture = control.limitPicture()
        subjects = picture.uses.map { Subject($0) }
        refused = picture.refusals.map { Refused(subject: $0.subject, policy: $0.policy, count: $0.count) }
        if !control.isAlone {
            let trips = history.redis
            let clock = control.clockReading
            redis = Redis(
                reached: control.isRedisUp, p50: milliseconds(trips.quantile(0.5)),
                p99: milliseconds(trips.quantile(0.99)), clockOffset: clock.map { milliseconds($0.offset) },
                clockBound: clock.map { milliseconds($0.bound) })
        }
        series = Series(
            intervalSeconds: Int(TrafficHistory.interval.seconds),
            points: history.points.suffix(points).map { point in
                let rate = point.rate
                return [
                    Double(point.time), tenths(rate.requests), tenths(rate.errors), tenths(rate.limited),
                    milliseconds(rate.p50), milliseconds(rate.p90), milliseconds(rate.p99),
                ]
            })
    }

    private static func nodes(_ control: Control, _ latest: TrafficRate) -> [Node] {
        let now = SystemClock.timestamp(microseconds: SystemClock.wallMicroseconds())
        func own(_ lastSeen: String) -> Node {
            Node(
                id: control.nodeID.text, address: control.ownAddress, isSelf: true, lastSeen: lastSeen,
                state: .alive, requestsPerSecond: tenths(latest.requests), errorsPerSecond: tenths(latest.errors),
                p99: milliseconds(latest.p99), version: Build.version, configuration: control.ownConfiguration,
                shared: control.sharedName)
        }
        let others = control.runningMembers.map { member in
            let lastSeen = SystemClock.timestamp(microseconds: member.lastSeen.microseconds)
            guard member.id != control.nodeID else { return own(lastSeen) }
            let activity = member.info?.activity
            return Node(
                id: member.id.text, address: member.info?.address ?? "", isSelf: false, lastSeen: lastSeen,
                state: NodeState(member), requestsPerSecond: activity?.requestsPerSecond,
                errorsPerSecond: activity?.errorsPerSecond,
                p99: activity.map { milliseconds(.microseconds($0.p99Microseconds)) }, version: activity?.version,
                configuration: member.info?.configuration, shared: activity?.configuration)
        }
        return others.contains(where: \.isSelf) ? others : [own(now)] + others
    }
}

extension Overview.Itself {
    fileprivate init(_ control: Control, _ rows: [BackendRow]) {
        let process = ProcessStatus.current()
        let status = control.connections
        id = control.nodeID.text
        version = Build.version
        configuration = control.ownConfiguration ?? ""
        shared = control.sharedName
        uptimeSeconds = Int((SystemClock.wallMicroseconds() - control.startedAt) / 1_000_000)
        ready = control.isReady
        cluster = control.clusterState.rawValue
        workers = control.workerCount
        connections = status.open
        connectionsMax = status.max
        residentBytes = process.resident
        cpuSeconds = (process.cpu.seconds * 100).rounded() / 100
        openDescriptors = process.openDescriptors
        maxDescriptors = process.maxDescriptors
        warnings = Warnings.of(control, rows)
    }
}

extension Overview.Backend {
    fileprivate init(_ row: BackendRow, requests: Double, errors: Double) {
        let status = row.status
        url = status.backend.url
        state = status.state.rawValue
        available = status.isAvailable
        breaker = row.breaker.rawValue
        reason = status.reason
        since = SystemClock.timestamp(microseconds: saturatingMultiply(status.since.milliseconds, 1_000))
        lastError = status.lastFailure?.description
        inFlight = row.inFlight
        votesDown = status.votes.count { $0.vote == .down }
        votesUp = status.votes.count - votesDown
        requestsPerSecond = tenths(requests)
        errorsPerSecond = tenths(errors)
    }
}

/// What speaks against a node that serves all the same: also in `/readyz`.
enum Warnings {
    static func of(_ control: Control, _ rows: [BackendRow]) -> [String] {
        var warnings: [String] = []
        func because(_ failure: RedisFailure?) -> String { failure.map { " (\($0))" } ?? "" }
        if control.limitState == .lost {
            let limits =
                switch control.lossRule {
                case .share: "this node admits its share of each limit"
                case .open: "nobody is limited"
                case .closed: "whoever has a limit is refused"
                case nil: "there are no limits to share"
                }
            warnings.append("Redis does not decide limits\(because(control.limiterFailure)): \(limits)")
        }
        if control.clusterState == .lost {
            warnings.append(
                "the cluster is out of reach\(because(control.clusterFailure)): health is this node's own view")
        }
        if let failure = control.newsFailure {
            warnings.append("news of the cluster are not heard\(because(failure)): they are read with each heartbeat")
        }
        if let failure = control.movesFailure {
            warnings.append(
                "sentinels are not heard\(because(failure)): another primary is found when the one before fails")
        }
        if control.board.status.lastError != nil {
            warnings.append("the last configuration was refused, the one before is in force: /api/config says why")
        }
        if control.connections.scarce {
            warnings.append("connections are scarce: the idle are closed, new ones may have to wait")
        }
        for service in control.services {
            let usable = rows.contains { $0.status.backend.service == service.name && $0.status.isAvailable }
            if !usable { warnings.append("\(service.name) has no backend that can be used") }
        }
        return warnings
    }
}

private func tenths(_ number: Double) -> Double { (number * 10).rounded() / 10 }
private func milliseconds(_ span: TimeSpan) -> Double { Double(span.microseconds) / 1_000 }
