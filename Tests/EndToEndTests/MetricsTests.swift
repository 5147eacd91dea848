import Foundation
import Glibc
import Primitives
import TestSupport
import Testing

@Suite("Metrics")
struct MetricsTests {
    @Test("requests are counted where they end, by service, class and outcome")
    func requests() throws {
        try Scene.play { scene in
            let backend = try scene.backend {
                try $0.answer("hello", status: $0.request.target == "/gone" ? "404 Not Found" : "200 OK")
                return .keep
            }
            var file = File([])
            file.services = [
                File.Service(name: "main", path: "/main", urls: [backend.url]),
                File.Service(name: "dead", path: "/dead", urls: ["http://127.0.0.1:1"]),
            ]
            let node = try scene.node(file)
            let body = "12345"
            for _ in 0..<3 { #expect(try node.ask("GET /main/ HTTP/1.1").status == 200) }
            #expect(try node.ask("POST /main/ HTTP/1.1", fields: "Content-Length: 5\r\n", body: body).status == 200)
            #expect(try node.ask("GET /main/gone HTTP/1.1").status == 404)
            #expect(try node.ask("GET /dead HTTP/1.1").status == 502)
            #expect(try node.ask("GET /nowhere HTTP/1.1").status == 404)
            #expect(try node.ask("GET /main/%00 HTTP/1.1").status == 400)
            #expect(try node.ask("GET / HTTP/9").status >= 400)

            var metrics = try node.metrics()
            // An exchange is counted when its answer has left.
            try eventually("all are counted") {
                metrics = try node.metrics()
                return metrics.value("sluice_request_duration_seconds_count") == 9
            }
            #expect(metrics.faults.isEmpty, "\(metrics.faults)")
            func requests(_ service: String, _ codeClass: String, _ outcome: String) -> Double? {
                metrics.value(
                    "sluice_requests_total", ["service": service, "code_class": codeClass, "outcome": outcome])
            }
            #expect(requests("main", "2xx", "proxied") == 4)
            #expect(requests("main", "4xx", "proxied") == 1)
            #expect(requests("dead", "5xx", "backend_failed") == 1)
            #expect(requests("dead", "2xx", "proxied") == 0)
            #expect(requests("", "4xx", "not_found") == 1)
            #expect(metrics.value("sluice_requests_total", ["service": "", "outcome": "rejected"]) == 2)
            #expect(metrics.value("sluice_requests_total") == 9)
            #expect(metrics.value("sluice_request_duration_seconds_count") == 9)
            #expect(metrics.value("sluice_request_duration_seconds_bucket", ["service": "main", "le": "+Inf"]) == 5)
            #expect(metrics.value("sluice_backend_duration_seconds_count", ["service": "main"]) == 5)
            #expect(metrics.value("sluice_request_bytes_total", ["service": "main"]) == 5)
            #expect(metrics.value("sluice_backend_responses_total", ["code_class": "2xx", "service": "main"]) == 4)
            #expect(metrics.value("sluice_backend_failures_total", ["service": "dead", "cause": "refused"]) ?? 0 > 0)
            #expect(metrics.value("sluice_backend_connections", ["service": "main"]) == 1)
            #expect(metrics.value("sluice_connections_accepted_total") == 9)
            #expect(metrics.value("sluice_backend_up", ["backend": backend.url]) == 1)
            #expect(metrics.value("process_start_time_seconds") ?? 0 > 1.7e9)
            #expect(metrics.value("process_open_fds") ?? 0 > 3)
            #expect(metrics.types["sluice_request_duration_seconds"] == "histogram")
        }
    }

    @Test("a histogram's buckets grow towards the whole, and the sum is that of the waiting")
    func histogram() throws {
        try Scene.play { scene in
            let backend = try scene.backend {
                usleep(30_000)
                try $0.answer("late")
                return .keep
            }
            let node = try scene.node(File([backend]))
            for _ in 0..<5 { #expect(try node.ask().status == 200) }
            var metrics = try node.metrics()
            try eventually("all are counted") {
                metrics = try node.metrics()
                return metrics.value("sluice_request_duration_seconds_count", ["service": "main"]) == 5
            }
            for name in ["sluice_request_duration_seconds", "sluice_backend_duration_seconds"] {
                let buckets = metrics.samples.filter { $0.name == name + "_bucket" && $0.labels["service"] == "main" }
                #expect(buckets.count > 10)
                #expect(zip(buckets, buckets.dropFirst()).allSatisfy { $0.value <= $1.value })
                #expect(buckets.last?.labels["le"] == "+Inf")
                #expect(buckets.last?.value == 5)
                #expect(buckets.first { $0.labels["le"] == "0.01" }?.value == 0)
                #expect(metrics.value(name + "_sum", ["service": "main"]) ?? 0 >= 0.15)
            }
        }
    }

    @Test("decisions, Redis and the cluster show in the metrics of a node that has them")
    func cluster() throws {
        try Scene.play { scene in
            let (redis, _, _, file) = try scene.halfDead(
                "requestsPerSecond: 3, policies: [{name: all, limit: 1, window: 1h, key: global, mode: shadow}]")
            let node = try scene.node(file)
            try LimitTests.reached([node])
            var refused = 0
            for _ in 0..<5 { if try node.ask().status == 429 { refused += 1 } }
            // A request is counted when its answer has left.
            try eventually("all are counted") {
                try node.metrics().value("sluice_requests_total", ["outcome": "limited"]) ?? 0 == Double(refused)
            }
            let metrics = try node.metrics()
            #expect(metrics.faults.isEmpty, "\(metrics.faults)")
            func decisions(_ policy: String, _ outcome: String) -> Double? {
                metrics.value("sluice_limiter_decisions_total", ["policy": policy, "outcome": outcome])
            }
            #expect(decisions("default", "refused") == Double(refused))
            #expect(decisions("default", "admitted") == Double(5 - refused))
            #expect(decisions("all", "shadow") ?? 0 > 0)
            #expect(metrics.value("sluice_requests_total", ["outcome": "limited"]) ?? 0 == Double(refused))
            #expect(metrics.value("sluice_redis_up") == 1)
            #expect(metrics.value("sluice_redis_duration_seconds_count") ?? 0 > 0)
            #expect(metrics.value("sluice_cluster_nodes") == 1)
            #expect(abs(metrics.value("sluice_clock_offset_seconds") ?? 9) < 1)
            #expect(metrics.value("sluice_clock_bound_seconds") ?? 0 > 0)
            // A node publishes its verdict on the dead backend, and hears it.
            try eventually("news is heard") {
                try node.metrics().value("sluice_health_news_delay_seconds") ?? 0 > 0
            }
            redis.kill()
            try eventually("the loss shows") { try node.metrics().value("sluice_redis_up") == 0 }
            let after = try node.metrics()
            #expect(after.value("sluice_redis_errors_total", ["cause": "unreachable"]) ?? 0 > 0)
            // The causes are those of GET /api/redis, and explained.
            let state = try JSONSerialization.jsonObject(with: Data(try node.admin("/api/redis").text.utf8))
            let failures = try #require((state as? [String: Any])?["failures"] as? [String: Any])
            let text = readFile(sourceTree() + "/docs/limits.md")
            for cause in failures.keys {
                #expect(after.value("sluice_redis_errors_total", ["cause": cause]) != nil, "\(cause)")
                #expect(
                    text.split(separator: "\n").contains {
                        $0.hasPrefix("| `") && $0.split(separator: "|").first?.contains("`\(cause)`") == true
                    }, "\(cause)")
            }
            let exposed = try node.admin("/metrics").text.split(separator: "\n")
            #expect(exposed.count { $0.hasPrefix("sluice_redis_errors_total{") } == failures.count)
        }
    }

    @Test("what a slow client leaves here shows as memory of its connection, and is gone with it")
    func memory() throws {
        try Scene.play { scene in
            let body = String(repeating: "x", count: 8 << 20)
            let backend = try scene.backend {
                try $0.answer(body)
                return .keep
            }
            var file = File([backend])
            file.rateLimit = "requestsPerSecond: 100"
            let node = try scene.node(file)
            func pool(_ name: String) throws -> Double {
                try node.metrics().value("sluice_memory_bytes", ["pool": name]) ?? -1
            }
            // One look finds what there was at the one before.
            try eventually("a worker has added up") { try pool("scratch") > 0 }
            #expect(try pool("clients") == 0)
            #expect(try pool("limits") > 0)
            #expect(try pool("counters") > 0)
            let slow = try node.connect(receiveBuffer: 4_096)
            try slow.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            try eventually("what it does not take is kept") { try pool("clients") > 0 }
            slow.close()
            try eventually("nothing is kept") { try pool("clients") == 0 }
        }
    }

    @Test("whose word a decision was is told apart")
    func sources() throws {
        try Scene.play { scene in
            let (_, _, node) = try LimitTests.node(
                scene, "policies: [{name: few, limit: 1, window: 1h}, {name: some, limit: 5, window: 1h, key: global}]")
            for _ in 0..<6 { _ = try node.ask() }
            let metrics = try node.metrics()
            #expect(metrics.faults.isEmpty, "\(metrics.faults)")
            func count(_ policy: String, _ outcome: String, _ source: String) -> Double? {
                metrics.value(
                    "sluice_limiter_decisions_total", ["policy": policy, "outcome": outcome, "source": source])
            }
            #expect(count("few", "admitted", "window") == 1)
            // Who filled the window has heard that it is full: the others need not ask, but for one a second.
            let asked = count("few", "refused", "window") ?? 0
            let known = count("few", "refused", "full_window") ?? 0
            #expect(known > 0 && asked + known == 5)
            #expect(count("some", "refused", "window") == 0)
            #expect(metrics.value("sluice_redis_breaker_open") == 0)
        }
    }

    @Test("every metric is documented, and every documented metric exists")
    func documented() throws {
        try Scene.play { scene in
            let node = try scene.node(try scene.halfDead("requestsPerSecond: 100").file)
            try LimitTests.reached([node])
            #expect(try node.ask().status == 200)
            try eventually("news is heard") {
                try node.metrics().value("sluice_health_news_delay_seconds") != nil
            }
            let metrics = try node.metrics()
            var documented: [String: String] = [:]
            for line in readFile(sourceTree() + "/docs/metrics.md").split(separator: "\n")
            where line.hasPrefix("| `sluice_") || line.hasPrefix("| `process_") {
                let cells = line.split(separator: "|").map { $0.trimmingSpaces() }
                documented[cells[0].filter { $0 != "`" }] = cells[1]
            }
            #expect(documented == metrics.types)
        }
    }

    @Test("promtool finds nothing to say against the metrics", .enabled(if: isInstalled("/usr/bin/promtool")))
    func promtool() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            var file = File([backend])
            file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\", requestsPerSecond: 1"
            let node = try scene.node(file)
            try LimitTests.reached([node])
            for _ in 0..<3 { _ = try node.ask() }
            let directory = try TemporaryDirectory()
            let path = try directory.write(try node.admin("/metrics").text, to: "metrics")
            let check = try ChildProcess("/bin/sh", ["-c", "promtool check metrics < \(path)"])
            let code = try check.waitForExit()
            #expect(code == 0, "\(check.errors)\(check.output)")
            #expect(check.errors.isEmpty && check.output.isEmpty, "\(check.errors)\(check.output)")
        }
    }
}

extension StringProtocol {
    func trimmingSpaces() -> String {
        String(drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
    }
}

/// The folder of this package.
func sourceTree(_ file: String = #filePath) -> String {
    file.split(separator: "/").dropLast(3).reduce(into: "") { $0 += "/\($1)" }
}

@Suite("What uses the metrics")
struct MetricsUseTests {
    /// Names of metrics in a text, without what a histogram adds.
    private static func names(_ text: String) -> Set<String> {
        var names: Set<String> = []
        for word in text.split(whereSeparator: { !($0.isLetter || $0.isNumber || $0 == "_") })
        where word.hasPrefix("sluice_") || word.hasPrefix("process_") {
            names.insert(String(word.hasSuffix("_bucket") ? word.dropLast(7) : word))
        }
        return names
    }

    @Test(
        "the dashboard and the alerts name only metrics that there are",
        arguments: ["configs/grafana/sluice.json", "configs/prometheus/alerts.yml"])
    func exists(path: String) throws {
        let used = Self.names(readFile("\(sourceTree())/\(path)"))
        // What is documented exists: `MetricsTests` compares it with a node's answer.
        let known = Self.names(readFile("\(sourceTree())/docs/metrics.md"))
        #expect(used.count > 5)
        #expect(used.subtracting(known).isEmpty)
    }

    @Test(
        "promtool accepts the alerts, and they fire when they should and not before",
        .enabled(if: isInstalled("/usr/bin/promtool")),
        arguments: [["check", "rules", "alerts.yml"], ["test", "rules", "alerts-test.yml"]])
    func alerts(words: [String]) throws {
        let file = "\(sourceTree())/configs/prometheus/\(words[2])"
        let check = try ChildProcess("/usr/bin/promtool", [words[0], words[1], file])
        #expect(try check.waitForExit() == 0, "\(check.errors)\(check.output)")
    }

    @Test(
        "promtool accepts every query of the dashboard, and none counts processes that are not nodes",
        .enabled(if: isInstalled("/usr/bin/promtool")))
    func queries() throws {
        let text = readFile("\(sourceTree())/configs/grafana/sluice.json")
        let dashboard = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
        let panels = try #require(dashboard?["panels"] as? [[String: Any]])
        let targets = panels.flatMap { $0["targets"] as? [[String: Any]] ?? [] }
        let queries = targets.compactMap { $0["expr"] as? String }
        #expect(queries.count == targets.count && queries.count > panels.count)
        // Every program that Prometheus knows has metrics named `process_…`.
        #expect(queries.filter { !$0.contains("sluice_") } == [])
        // As Grafana fills in what stands for all.
        let rules = queries.enumerated().map { index, query in
            [
                "record": "query_\(index)",
                "expr": query.replacing("$__rate_interval", with: "20s").replacing("$__range", with: "30m")
                    .replacing("$service", with: ".*").replacing("$instance", with: ".*"),
            ]
        }
        let file: [String: Any] = ["groups": [["name": "dashboard", "rules": rules] as [String: Any]]]
        let directory = try TemporaryDirectory()
        let json = try JSONSerialization.data(withJSONObject: file, options: .withoutEscapingSlashes)
        let path = try directory.write(String(decoding: json, as: UTF8.self), to: "rules.yml")
        let check = try ChildProcess("/usr/bin/promtool", ["check", "rules", path])
        #expect(try check.waitForExit() == 0, "\(check.errors)\(check.output)")
        #expect(check.output.contains("\(queries.count) rules found"), "\(check.output)")
    }

    @Test("every alert is explained to who is on call")
    func explained() {
        let explained = readFile("\(sourceTree())/docs/operations.md")
        let alerts = readFile("\(sourceTree())/configs/prometheus/alerts.yml").split(separator: "\n")
            .filter { $0.contains("- alert: ") }.compactMap { $0.split(separator: " ").last }
        #expect(alerts.count > 20)
        #expect(alerts.filter { !explained.contains("`\($0)`") }.isEmpty)
    }
}
