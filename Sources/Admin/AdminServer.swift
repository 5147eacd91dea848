// What a node tells its operators: whether it lives, whether it wants traffic, and what it knows of backends and nodes.

import FoundationEssentials
package import Gateway
import Health
package import LinuxIO
import Membership
import Primitives
import RateLimiting
import RedisClient
package import Supervision

package enum AdminServer {
    /// Serves the admin API on a control loop. The names in its JSON are stable. Returns what ends it.
    package static func start(_ control: Control, on socket: ListeningSocket, _ lifecycle: Lifecycle)
        throws(SystemError) -> () -> Void
    {
        // One that was made stays for the life of the listener, whatever is configured later.
        var made: SecretFile?
        if control.adminToken == nil {
            made = AdminToken.leave(port: socket.address.port, inheriting: lifecycle.inheritsAdmin)
        }
        control.whenStopped = { [made] in made?.leave() }
        let isLoopback = socket.address.ip.isLoopback
        let streams = EventStreams(control.events, loop: control.loop)
        control.watchTraffic()
        let shed = { [weak control] in if let control { control.adminConnectionsShed += 1 } }
        let server = try JSONServer(
            socket, loop: control.loop, connectionsMax: JSONServer.connectionsMaxOfOperators, shed: shed
        ) { [weak control] request in
            guard let control else { return .problem(503, "The node has ended") }
            if request.path == "/api/events", request.method == "GET" { return streams.answer(request) }
            return AdminLifecycle.answer(request, control, lifecycle) ?? answer(request, control, lifecycle)
        } admit: { [weak control] request in
            let gate = AdminGate(token: control?.adminToken ?? made?.text, isLoopback: isLoopback)
            if let refusal = gate.refusal(of: request) { return .refused(refusal) }
            return AdminConfiguration.wantsBody(request) ? .withBody : .withoutBody
        }
        // From here on the process that has taken over answers, here or elsewhere.
        control.whenHandingOver { [made] in
            server.leave()
            made?.leave()
        }
        return { [unowned control, made] in
            server.close()
            made?.leave()
            control.whenStopped = nil
        }
    }

    private static func answer(
        _ request: SmallRequest, _ control: Control, _ lifecycle: Lifecycle
    ) -> SmallAnswer {
        if request.path.hasPrefix(AdminWords.prefix) { return AdminWords.answer(request, control) }
        if let answer = AdminConfiguration.answer(request, control) { return answer }
        guard request.method == "GET" || request.method == "HEAD" else { return .problem(405, "Method not allowed") }
        switch request.path {
        case "/healthz": return encode(Alive(status: "ok", node: control.nodeID.text))
        case "/readyz":
            let ready = Readiness(
                ready: control.isReady, reason: control.readiness.rawValue,
                warnings: Warnings.of(control, control.backendRows), cluster: control.clusterState.rawValue,
                limits: control.limitState.rawValue, connections: .init(control.connections))
            return encode(ready, status: control.isReady ? 200 : 503)
        case "/", "/dashboard.css", "/dashboard.js": return Dashboard.answer(request.path)
        case "/metrics":
            return SmallAnswer(contentType: Metrics.contentType, body: Array(Metrics.text(control, lifecycle).utf8))
        case "/api/backends": return encode(BackendListing(control))
        case "/api/overview": return encode(Overview(control, points: points(request)))
        case "/api/nodes": return encode(nodes(control))
        case "/api/redis": return encode(RedisState(control))
        case "/api/retries": return encode(Retries(services: control.retryRows.map { Retries.Row($0) }))
        case "/api/limits": return encode(Limits(control.limitStatus))
        default:
            return .problem(
                404,
                "No such page: try /, /healthz, /readyz, /metrics, or under /api: overview, events, node, nodes, backends, config, limits, retries, redis"
            )
        }
    }

    /// How much of the last minutes is asked for; all where the request does not say.
    private static func points(_ request: SmallRequest) -> Int {
        for pair in request.query.split(separator: "&") where pair.hasPrefix("points=") {
            if let count = Int(pair.dropFirst(7)) { return max(0, min(count, 1_000)) }
        }
        return 1_000
    }

    private static func nodes(_ control: Control) -> Nodes {
        if control.isAlone {
            let now = SystemClock.timestamp(microseconds: SystemClock.wallMicroseconds())
            return Nodes(nodes: [
                .init(
                    id: control.nodeID.text, address: control.ownAddress, lastSeen: now, state: .alive,
                    configuration: control.ownConfiguration, shared: control.sharedName)
            ])
        }
        return Nodes(
            nodes: control.runningMembers.map { member in
                .init(
                    id: member.id.text, address: member.info?.address ?? "",
                    lastSeen: SystemClock.timestamp(microseconds: member.lastSeen.microseconds),
                    state: NodeState(member), configuration: member.info?.configuration,
                    shared: member.id == control.nodeID ? control.sharedName : member.info?.activity?.configuration)
            })
    }

    static func encode(
        _ value: some Encodable, status: Int = 200, type: String = "application/json"
    ) -> SmallAnswer {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { return .problem(500, "This answer cannot be encoded") }
        return SmallAnswer(status: status, contentType: type, body: Array(data) + [0x0a])
    }

    private struct Alive: Encodable {
        var status: String
        var node: String
    }

    private struct Readiness: Encodable {
        var ready: Bool
        var reason: String
        /// What speaks against it though it serves.
        var warnings: [String]
        /// How the line to the other nodes is, and whether Redis decides limits.
        var cluster: String
        var limits: String
        var connections: Connections
    }

    private struct Connections: Encodable {
        var open: Int
        var max: Int
        var scarce: Bool
        var shed: Int
        var refused: Int
        var refusedProxyHeaders: Int

        init(_ status: ConnectionStatus) {
            open = status.open
            max = status.max
            scarce = status.scarce
            shed = status.shed
            refused = status.refused
            refusedProxyHeaders = status.refusedHeaders
        }
    }

    /// How Redis is reached, and what got in the way since the start.
    private struct RedisState: Encodable {
        struct Reasons: Encodable {
            var cluster: String?
            var limits: String?
            var news: String?
            var sentinels: String?
        }
        var state: String
        var limits: String
        /// What stands in the way now.
        var reasons: Reasons
        var failures: [String: Int]
        var dataLosses: Int
        var clockSteps: Int

        init(_ control: Control) {
            state = control.clusterState.rawValue
            limits = control.limitState.rawValue
            reasons = Reasons(
                cluster: control.clusterFailure?.description, limits: control.limiterFailure?.description,
                news: control.newsFailure?.description, sentinels: control.movesFailure?.description)
            let counts = control.failures
            failures = Dictionary(
                uniqueKeysWithValues: RedisCause.allCases.map { ($0.name, counts.count(of: $0)) })
            dataLosses = counts.dataLosses
            clockSteps = counts.clockSteps
        }
    }

    private struct Retries: Encodable {
        struct Row: Encodable {
            var service: String
            /// Requests of this node that went to another backend.
            var retries: UInt64
            /// Those for which the budget was used up.
            var denied: UInt64

            init(_ row: RetryRow) {
                service = row.service
                retries = row.retries
                denied = row.denied
            }
        }
        var services: [Row]
    }

    private struct Limits: Encodable {
        struct Row: Encodable {
            var name: String
            /// Whose limit it is, where tiers have their own.
            var tier: String?
            var limit: Int
            /// Absent where requests at once are counted.
            var window: String?
            var key: String
            var mode: String
            var admitted: Int
            var refused: Int
        }
        var policies: [Row]

        init(_ status: LimitStatus) {
            policies = status.policies.enumerated().map { index, policy in
                return Row(
                    name: policy.name, tier: policy.tier, limit: policy.limit,
                    window: policy.form == .leases ? nil : "\(policy.window)", key: "\(policy.key)",
                    mode: policy.mode == .shadow ? "shadow" : "enforce", admitted: status.admitted(by: index),
                    refused: status.refused(by: index))
            }
        }
    }

    private struct Nodes: Encodable {
        struct Row: Encodable {
            var id: String
            var address: String
            var lastSeen: String
            var state: NodeState
            /// The cluster's version that it goes by, or a hash of its own file.
            var configuration: String?
            /// Equal where what must be the same on all nodes is; absent from nodes that do not say.
            var shared: String?
        }
        var nodes: [Row]
    }
}
