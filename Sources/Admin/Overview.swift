// The cluster at a glance, as this node sees it: one answer for the dashboard and for `sluice top`. Names are stable, and
// docs/openapi.yaml describes them. Durations are in milliseconds, rates a second.

import FoundationEssentials
import Gateway
import Health
import LinuxIO
import Membership
import Primitives
import RateLimiting

struct Overview: Encodable {
    struct Node: Encodable {
        var id: String
        var address: String
        var isSelf: Bool
        var lastSeen: String
        var requestsPerSecond: Double?
        var errorsPerSecond: Double?
        var p99: Double?
        var version: String?
        var configuration: String?
    }

    struct Itself: Encodable {
        var id: String
        var version: String
        var configuration: String
        var uptimeSeconds: Int
        var ready: Bool
        var cluster: String
        var workers: Int
        var connections: Int
        var connectionsMax: Int
        var residentBytes: Int
        var cpuSeconds: Double
        var openDescriptors: Int
        var maxDescriptors: Int
        /// What an operator should look at; empty when all is well.
        var warnings: [String]
    }

    struct Rate: Encodable {
        var requestsPerSecond: Double
        var errorsPerSecond: Double
        var limitedPerSecond: Double
        var p50: Double
        var p90: Double
        var p99: Double

        init(_ rate: TrafficRate) {
            requestsPerSecond = tenths(rate.requests)
            errorsPerSecond = tenths(rate.errors)
            limitedPerSecond = tenths(rate.limited)
            p50 = milliseconds(rate.p50)
            p90 = milliseconds(rate.p90)
            p99 = milliseconds(rate.p99)
        }
    }

    struct Service: Encodable {
        var name: String
        var path: String
        var traffic: Rate
        var backends: [Backend]
    }

    struct Backend: Encodable {
        var url: String
        var state: String
        var available: Bool
        var breaker: String
        var reason: String
        var since: String
        var lastError: String?
        var inFlight: Int
        var votesUp: Int
        var votesDown: Int
        var requestsPerSecond: Double
        var errorsPerSecond: Double
    }

    struct Limit: Encodable {
        var name: String
        var limit: Int
        var window: String
        var mode: String
        var admitted: Int
        var refused: Int
        var admittedPerSecond: Double
        var refusedPerSecond: Double
    }

    struct Refused: Encodable {
        var subject: String
        var policy: String
        var count: Int
    }

    struct Redis: Encodable {
        var reached: Bool
        var p50: Double
        var p99: Double
        var clockOffset: Double?
        var clockBound: Double?
    }

    /// The last minutes, a point each two seconds: the names of `columns` say what stands in a point.
    struct Series: Encodable {
        var intervalSeconds: Int
        var columns = ["time", "requests", "errors", "limited", "p50", "p90", "p99"]
        var points: [[Double]]
    }

    var node: Itself
    var traffic: Rate
    var nodes: [Node]
    var services: [Service]
    var limits: [Limit]
    var refused: [Refused]
    var redis: Redis?
    var series: Series
    var time: String

    private static let refusedMax = 10

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
                name: policy.name, limit: policy.limit, window: "\(policy.window)",
                mode: policy.mode == .shadow ? "shadow" : "enforce", admitted: status.admitted(by: index),
                refused: status.refused(by: index), admittedPerSecond: tenths(rate.admitted),
                refusedPerSecond: tenths(rate.refused))
        }
        refused = control.refusedClients(atMost: Self.refusedMax).map { client in
            let isKnown = client.policy < status.policies.count
            return Refused(
                subject: client.subject, policy: isKnown ? status.policies[client.policy].name : "",
                count: client.count)
        }
        if !control.isAlone {
            let trips = history.redis
            let clock = control.clockReading
            redis = Redis(
                reached: control.clusterState == .reached, p50: milliseconds(trips.quantile(0.5)),
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
                requestsPerSecond: tenths(latest.requests), errorsPerSecond: tenths(latest.errors),
                p99: milliseconds(latest.p99), version: Build.version, configuration: control.configurationVersion)
        }
        let others = control.members.map { member in
            let lastSeen = SystemClock.timestamp(microseconds: member.lastSeen.microseconds)
            guard member.id != control.nodeID else { return own(lastSeen) }
            let activity = member.info?.activity
            return Node(
                id: member.id.text, address: member.info?.address ?? "", isSelf: false, lastSeen: lastSeen,
                requestsPerSecond: activity?.requestsPerSecond, errorsPerSecond: activity?.errorsPerSecond,
                p99: activity.map { milliseconds(.microseconds($0.p99Microseconds)) }, version: activity?.version,
                configuration: activity?.configuration)
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
        configuration = control.configurationVersion
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
        if control.clusterState == .lost {
            warnings.append("Redis is out of reach: limits follow the rule for that, health is this node's own view")
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
