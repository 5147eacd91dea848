// What `/metrics` says. All names are here, docs/metrics.md lists them for people, and a test compares the two with what
// a running node answers. Labels take their values from the configuration and from lists in the code: a client cannot
// make a new one.

import Gateway
import Health
import LinuxIO
import Primitives
import RateLimiting
import RedisClient
import Supervision

enum Metrics {
    static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    static func text(_ control: Control, _ lifecycle: Lifecycle) -> String {
        var out = MetricsText()
        writeTraffic(control, &out)
        writeBackends(control, &out)
        writeLimits(control, &out)
        writeCluster(control, &out)
        writeNode(control, lifecycle, &out)
        return out.text
    }

    // MARK: Requests

    private static func writeTraffic(_ control: Control, _ out: inout MetricsText) {
        let services = control.services.map { ($0.name, $0.traffic) }
        // No service's name is empty.
        let all = services + [("", control.traffic.unrouted)]
        out.write(
            Metric(
                name: "sluice_requests_total", kind: .counter,
                help: "Requests that have ended, by service (empty: none had the path), status class and outcome.",
                labels: ["service", "code_class", "outcome"])
        ) {
            for (name, traffic) in all {
                for codeClass in 0...ServiceTraffic.classMax {
                    for outcome in RequestOutcome.allCases {
                        let count = traffic.requests(class: codeClass, outcome)
                        // Rates need a beginning: what every service has shows before it happens.
                        let isUsual = codeClass == 2 && outcome == .proxied && !name.isEmpty
                        guard count > 0 || isUsual else { continue }
                        $0.add(count, name, codeClass == 0 ? "none" : "\(codeClass)xx", outcome.name)
                    }
                }
            }
        }
        out.write(
            Metric(
                name: "sluice_request_duration_seconds", kind: .histogram,
                help: "From a request's head to the end of its answer; without tunnels.", labels: ["service"])
        ) { for (name, traffic) in all { $0.add(traffic.durations, name) } }
        out.write(
            Metric(
                name: "sluice_backend_duration_seconds", kind: .histogram,
                help: "From sending a request to the head of its backend's answer.", labels: ["service"])
        ) { for (name, traffic) in services { $0.add(traffic.backendDurations, name) } }
        out.write(
            Metric(
                name: "sluice_request_bytes_total", kind: .counter, help: "Bytes of bodies received from clients.",
                labels: ["service"])
        ) { for (name, traffic) in all { $0.add(traffic.receivedBytes, name) } }
        out.write(
            Metric(
                name: "sluice_response_bytes_total", kind: .counter,
                help: "Bytes of bodies sent to clients; of the gateway's own answers, all bytes.", labels: ["service"])
        ) { for (name, traffic) in all { $0.add(traffic.sentBytes, name) } }
        out.write(
            Metric(
                name: "sluice_retries_total", kind: .counter, help: "Requests that were sent once more.",
                labels: ["service"])
        ) { for (name, traffic) in services { $0.add(traffic.retryCount, name) } }
        out.write(
            Metric(
                name: "sluice_service_maintenance", kind: .gauge,
                help: "Whether a service is under maintenance, so that only its guests reach a backend.",
                labels: ["service"])
        ) { for service in control.services { $0.add(service.isUnderMaintenance, service.name) } }
    }

    // MARK: Backends

    private static func writeBackends(_ control: Control, _ out: inout MetricsText) {
        let backends = control.services.flatMap { service in
            service.backends.map { (service.name, $0.url, $0.traffic) }
        }
        let labels = ["service", "backend"]
        out.write(
            Metric(
                name: "sluice_backend_responses_total", kind: .counter, help: "Answers of a backend, by status class.",
                labels: labels + ["code_class"])
        ) {
            for (service, url, traffic) in backends {
                for codeClass in 1...ServiceTraffic.classMax {
                    let count = traffic.answers(class: codeClass)
                    if count > 0 || codeClass == 2 { $0.add(count, service, url, "\(codeClass)xx") }
                }
            }
        }
        out.write(
            Metric(
                name: "sluice_backend_failures_total", kind: .counter,
                help: "Requests that a backend let down without an answer, by cause.", labels: labels + ["cause"])
        ) {
            for (service, url, traffic) in backends {
                for (kind, count) in traffic.faults { $0.add(count, service, url, kind) }
            }
        }
        out.write(
            Metric(
                name: "sluice_backend_connections", kind: .gauge, help: "Connections to a backend, idle ones too.",
                labels: labels)
        ) { for (service, url, traffic) in backends { $0.add(traffic.connectionsOpen, service, url) } }
        out.write(
            Metric(
                name: "sluice_backend_connections_opened_total", kind: .counter,
                help: "Connections begun to a backend.", labels: labels)
        ) { for (service, url, traffic) in backends { $0.add(traffic.connectionsOpened, service, url) } }
        writeHealth(control, labels, &out)
    }

    private static func writeHealth(_ control: Control, _ labels: [String], _ out: inout MetricsText) {
        let rows = control.backendRows
        func write(
            _ name: String, _ kind: MetricKind, _ help: String, _ value: (BackendRow) -> Int
        ) {
            out.write(Metric(name: name, kind: kind, help: help, labels: labels)) {
                for row in rows { $0.add(value(row), row.status.backend.service, row.status.backend.url) }
            }
        }
        write("sluice_backend_up", .gauge, "Whether the cluster holds a backend to be up.") {
            $0.status.state == .up ? 1 : 0
        }
        write("sluice_backend_draining", .gauge, "Whether an operator drains a backend.") {
            $0.status.state == .draining ? 1 : 0
        }
        write("sluice_backend_available", .gauge, "Whether this node sends requests to a backend.") {
            $0.status.isAvailable ? 1 : 0
        }
        write("sluice_backend_in_flight", .gauge, "Requests of this node that are under way at a backend.") {
            $0.inFlight
        }
        write(
            "sluice_backend_changes_total", .counter,
            "How often what a backend is to this node has changed: the verdict, the breaker, what operators say. "
                + "One outage is up to 8."
        ) {
            Int(clamping: $0.status.changes)
        }
        out.write(
            Metric(
                name: "sluice_backend_votes", kind: .gauge, help: "Live nodes that hold a backend to be up, or down.",
                labels: labels + ["vote"])
        ) {
            for row in rows {
                let down = row.status.votes.count { $0.vote == .down }
                let key = row.status.backend
                $0.add(row.status.votes.count - down, key.service, key.url, "up")
                $0.add(down, key.service, key.url, "down")
            }
        }
        out.write(
            Metric(
                name: "sluice_backend_breaker_state", kind: .gauge,
                help: "A backend's circuit breaker: 1 for the state that it is in.", labels: labels + ["state"])
        ) {
            for row in rows {
                for state in BreakerState.allCases {
                    $0.add(row.breaker == state, row.status.backend.service, row.status.backend.url, state.rawValue)
                }
            }
        }
    }

    // MARK: Limits and Redis

    private static func writeLimits(_ control: Control, _ out: inout MetricsText) {
        let status = control.limitStatus
        out.write(
            Metric(
                name: "sluice_limiter_decisions_total", kind: .counter,
                help:
                    "What a policy said of requests (admitted, refused, or shadow: would have refused), and by whose word (source).",
                labels: ["policy", "tier", "outcome", "source"])
        ) {
            for (index, policy) in status.policies.enumerated() {
                let (tier, isShadow) = (policy.tier ?? "", policy.mode == .shadow)
                for (source, admitted, refused) in status.bySource(index) {
                    let name = name(of: source)
                    let outcomes = [("admitted", admitted), (isShadow ? "shadow" : "refused", refused)]
                    // Rates need a beginning.
                    let isUsual = source == (control.isAlone ? .bucket : .window)
                    for (outcome, count) in outcomes where count > 0 || isUsual {
                        $0.add(count, policy.name, tier, outcome, name)
                    }
                }
            }
        }
    }

    private static func name(of source: VerdictSource) -> String {
        switch source {
        case .window: "window"
        case .fullWindow: "full_window"
        case .share: "share"
        case .open: "open"
        case .closed: "closed"
        case .bucket: "bucket"
        }
    }

    private static func writeCluster(_ control: Control, _ out: inout MetricsText) {
        out.write(
            Metric(name: "sluice_cluster_nodes", kind: .gauge, help: "Living nodes of the cluster, this one included.")
        ) { $0.add(control.isAlone ? 1 : control.members.count) }
        guard !control.isAlone else { return }
        out.write(
            Metric(
                name: "sluice_cluster_cut_off_nodes", kind: .gauge,
                help: "Nodes that run and are cut off from Redis, as this node sees it.")
        ) { $0.add(control.cutOffCount) }
        out.write(
            Metric(
                name: "sluice_redis_up", kind: .gauge,
                help: "Whether Redis takes this node's heartbeats and decides its limits.")
        ) {
            $0.add(control.isRedisUp)
        }
        if let trips = control.limiterRoundTrips {
            out.write(
                Metric(
                    name: "sluice_redis_duration_seconds", kind: .histogram,
                    help: "How long Redis took for a limiter's transaction, waiting included.")
            ) { $0.add(trips) }
        }
        out.write(
            Metric(
                name: "sluice_redis_breaker_open", kind: .gauge,
                help: "Workers whose decisions wait for Redis no more: the loss rule decides.")
        ) { $0.add(control.limiterLost.count) }
        out.write(
            Metric(
                name: "sluice_redis_breaker_openings_total", kind: .counter,
                help: "How often a worker has stopped to wait for Redis.")
        ) { $0.add(control.breakerOpenings) }
        out.write(
            Metric(
                name: "sluice_redis_errors_total", kind: .counter, help: "What got in the way between here and Redis.",
                labels: ["cause"])
        ) { for cause in RedisCause.allCases { $0.add(control.failures.count(of: cause), cause.name) } }
        out.write(
            Metric(
                name: "sluice_redis_data_losses_total", kind: .counter,
                help: "How often Redis was found without the data that it had.")
        ) { $0.add(control.failures.dataLosses) }
        out.write(
            Metric(
                name: "sluice_redis_clock_steps_total", kind: .counter, help: "How often Redis's clock was set.")
        ) { $0.add(control.failures.clockSteps) }
        if let clock = control.clockReading {
            out.write(
                Metric(
                    name: "sluice_clock_offset_seconds", kind: .gauge,
                    help: "Redis's clock less this machine's, at the last heartbeat.")
            ) { $0.add(clock.offset) }
            out.write(
                Metric(
                    name: "sluice_clock_bound_seconds", kind: .gauge,
                    help: "The most by which sluice_clock_offset_seconds can be wrong.")
            ) { $0.add(clock.bound) }
            out.write(
                Metric(
                    name: "sluice_heartbeat_duration_seconds", kind: .gauge, help: "How long the last heartbeat took.")
            ) { $0.add(clock.roundTrip) }
        }
        if let delay = control.newsDelay, delay.count > 0 {
            out.write(
                Metric(
                    name: "sluice_health_news_delay_seconds", kind: .gauge,
                    help: "How long this node's last news of a backend took to be heard by all.")
            ) { $0.add(delay.last) }
        }
    }

    // MARK: The node and its process

    private static func writeNode(_ control: Control, _ lifecycle: Lifecycle, _ out: inout MetricsText) {
        func write(_ name: String, _ kind: MetricKind, _ help: String, _ value: Int) {
            out.write(Metric(name: name, kind: kind, help: help)) { $0.add(value) }
        }
        let connections = control.connections
        write("sluice_connections", .gauge, "Open connections of clients.", connections.open)
        write("sluice_connections_max", .gauge, "How many connections of clients there may be.", connections.max)
        write(
            "sluice_connections_accepted_total", .counter, "Connections of clients that were accepted.",
            control.traffic.connectionsAccepted)
        write(
            "sluice_connections_shed_total", .counter, "Idle connections that were closed to make room.",
            connections.shed)
        write(
            "sluice_connections_refused_total", .counter, "Connections of clients that had their share.",
            connections.refused)
        write(
            "sluice_admin_connections_shed_total", .counter,
            "Quiet connections of operators that made room for others.",
            control.adminConnectionsShed)
        write("sluice_ready", .gauge, "Whether clients should be sent here.", control.isReady ? 1 : 0)
        write("sluice_workers", .gauge, "Event loops that serve clients.", control.workerCount)
        write(
            "sluice_access_log_dropped_total", .counter, "Lines of the access log that were lost.",
            control.accessLogLosses.lines)
        write(
            "sluice_access_log_errors_total", .counter, "Writes of the access log that failed.",
            control.accessLogLosses.errors)
        if let losses = control.eventLogLosses {
            write(
                "sluice_event_log_dropped_total", .counter, "Lines of the event log that were lost.", losses.lines)
            write("sluice_event_log_errors_total", .counter, "Writes of the event log that failed.", losses.errors)
        }
        write(
            "sluice_trace_spans_exported_total", .counter, "Spans that a collector has taken.",
            control.spanCounts.exported)
        out.write(
            Metric(
                name: "sluice_trace_spans_dropped_total", kind: .counter,
                help:
                    "Spans that were lost: too many waited, or the collector did not want them, or could not be reached.",
                labels: ["reason"])
        ) { for loss in SpanCounts.Loss.allCases { $0.add(control.spanCounts.dropped(loss), loss.name) } }
        write(
            "sluice_trace_export_failures_total", .counter, "Times that a batch of spans could not be delivered.",
            control.spanCounts.failures)
        out.write(
            Metric(
                name: "sluice_build_info", kind: .gauge, help: "The version of this binary; always 1.",
                labels: ["version"])
        ) { $0.add(1, Build.version) }
        out.write(
            Metric(
                name: "sluice_config_info", kind: .gauge,
                help: "The running configuration: version is equal where what must be the same on all nodes is, "
                    + "configuration is its name in /api/nodes; always 1.",
                labels: ["version", "configuration"])
        ) { $0.add(1, control.sharedName, control.ownConfiguration ?? "") }
        writeReloads(control.board.status, &out)
        write(
            "sluice_crashes_total", .counter, "Processes of this node that crashed and were replaced by their parent.",
            lifecycle.crashes)
        writeProcess(control, &out)
    }

    private static func writeReloads(_ status: ConfigurationStatus, _ out: inout MetricsText) {
        out.write(
            Metric(
                name: "sluice_config_reloads_total", kind: .counter,
                help: "Reloads that have put a configuration in force, or failed and changed nothing.",
                labels: ["outcome"])
        ) {
            $0.add(status.reloads, "succeeded")
            $0.add(status.failures, "failed")
        }
        out.write(
            Metric(
                name: "sluice_config_last_reload_successful", kind: .gauge,
                help: "Whether the last reload went well; 1 where there was none.")
        ) { $0.add(status.lastError == nil) }
        out.write(
            Metric(
                name: "sluice_config_last_reload_success_timestamp_seconds", kind: .gauge,
                help: "When the running configuration came into force, since 1970.")
        ) { $0.add(TimeSpan.microseconds(status.loadedAt)) }
    }

    private static func writeProcess(_ control: Control, _ out: inout MetricsText) {
        let process = ProcessStatus.current()
        out.write(
            Metric(
                name: "sluice_memory_bytes", kind: .gauge,
                help: "Memory by what it is for; of the workers' own, as it was at the scrape before.",
                labels: ["pool"])
        ) { for pool in MemoryPool.allCases { $0.add(control.memory(pool), pool.name) } }
        control.weighMemory()
        out.write(
            Metric(
                name: "sluice_heap_bytes", kind: .gauge,
                help: "The allocator's memory: used and mapped (large blocks) are given out, free lies ready.",
                labels: ["state"])
        ) {
            $0.add(process.heapUsed, "used")
            $0.add(process.heapMapped, "mapped")
            $0.add(process.heapFree, "free")
        }
        out.write(
            Metric(name: "process_cpu_seconds_total", kind: .counter, help: "Processor time, of user and system.")
        ) { $0.add(process.cpu) }
        func write(_ name: String, _ help: String, _ value: Int) {
            out.write(Metric(name: name, kind: .gauge, help: help)) { $0.add(value) }
        }
        write("process_resident_memory_bytes", "Resident memory.", process.resident)
        write("process_virtual_memory_bytes", "Mapped addresses.", process.virtual)
        write("process_open_fds", "Open file descriptors.", process.openDescriptors)
        write("process_max_fds", "File descriptors that may be open.", process.maxDescriptors)
        write("process_threads", "Threads.", process.threads)
        out.write(
            Metric(
                name: "process_start_time_seconds", kind: .gauge, help: "When the process started, since 1970.")
        ) { $0.add(TimeSpan.microseconds(control.startedAt)) }
    }
}
