import Foundation
import Glibc
import Primitives
import TestSupport
import Testing

@Suite("Watching a node")
struct WatchingTests {
    private func overview(_ node: SluiceNode) throws -> [String: Any] {
        let answer = try node.admin("/api/overview")
        #expect(answer.status == 200)
        return try #require(try JSONSerialization.jsonObject(with: Data(answer.text.utf8)) as? [String: Any])
    }

    @Test("the dashboard brings its own style and script, and the browser is told to take nothing else")
    func dashboard() throws {
        try Scene.play { scene in
            let node = try scene.node(File([try scene.backend()]))
            for (path, type) in [
                ("/", "text/html"), ("/dashboard.css", "text/css"), ("/dashboard.js", "text/javascript"),
            ] {
                let answer = try node.admin(path)
                #expect(answer.status == 200)
                #expect(answer.value("Content-Type")?.hasPrefix(type) == true)
                let policy = answer.value("Content-Security-Policy") ?? ""
                #expect(policy.hasPrefix("default-src 'none'; script-src 'self'; style-src 'self'"))
                #expect(!policy.contains("unsafe"))
                #expect(!answer.text.contains("http://") || path == "/dashboard.js")
                #expect(!answer.text.contains("innerHTML"))
            }
            let page = try node.admin("/").text
            #expect(!page.contains("<style") && !page.contains("onclick") && !page.contains("style="))
        }
    }

    @Test("the overview tells the traffic of the last minutes, backends, limits and who is refused")
    func overview() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            file.rateLimit = "policies: [{name: few, limit: 2, window: 1h}]"
            let node = try scene.node(file)
            var refused = 0
            for _ in 0..<6 { if try node.ask().status == 429 { refused += 1 } }
            #expect(refused == 4)
            var seen: [String: Any] = [:]
            try eventually("two looks have been taken") {
                seen = try overview(node)
                let series = seen["series"] as? [String: Any]
                return (series?["points"] as? [[Double]])?.contains { $0[1] > 0 } == true
            }
            let services = try #require(seen["services"] as? [[String: Any]])
            #expect(services.map { $0["name"] as? String } == ["main"])
            let backends = try #require(services[0]["backends"] as? [[String: Any]])
            #expect(backends.map { $0["url"] as? String } == [backend.url])
            let limits = try #require(seen["limits"] as? [[String: Any]])
            #expect(limits.map { $0["refused"] as? Int } == [4])
            let list = try #require(seen["refused"] as? [[String: Any]])
            #expect(list.map { $0["subject"] as? String } == ["ip:127.0.0.1"])
            #expect(list.map { $0["policy"] as? String } == ["few"])
            #expect(list.map { $0["count"] as? Int } == [4])
        }
    }

    @Test("nodes tell each other of their traffic, and any of them shows all")
    func cluster() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            var file = File([try scene.backend()])
            file.gateway = "heartbeat: 100ms"
            file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let nodes = try ["a", "b"].map { try scene.node(file, ["--node-id", $0]) }
            try LimitTests.reached(nodes)
            for node in nodes {
                try eventually("it knows the other's version") {
                    let rows = try overview(node)["nodes"] as? [[String: Any]] ?? []
                    return rows.count == 2 && rows.allSatisfy { $0["version"] != nil && $0["requestsPerSecond"] != nil }
                }
            }
        }
    }

    @Test("who is near a limit and who is refused shows on every node, whichever node let them in")
    func limits() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            var file = File([try scene.backend()])
            file.gateway = "heartbeat: 100ms, trustedProxies: [\"127.0.0.1/32\"]"
            file.rateLimit =
                "redisURL: \"redis://127.0.0.1:\(redis.port)\", timeout: 5s, "
                + "policies: [{name: few, limit: 10, window: 1h}]"
            let nodes = try ["a", "b"].map { try scene.node(file, ["--node-id", $0]) }
            try LimitTests.reached(nodes)
            for node in nodes {
                for _ in 0..<4 { #expect(try node.ask(fields: "X-Forwarded-For: 192.0.2.1\r\n").status == 200) }
            }
            for _ in 0..<13 { _ = try nodes[0].ask(fields: "X-Forwarded-For: 192.0.2.2\r\n") }
            for node in nodes {
                var subjects: [[String: Any]] = []
                var refused: [[String: Any]] = []
                try eventually("it knows what the other has let in") {
                    let seen = try overview(node)
                    subjects = seen["subjects"] as? [[String: Any]] ?? []
                    refused = seen["refused"] as? [[String: Any]] ?? []
                    return subjects.map { $0["used"] as? Int } == [10, 8] && !refused.isEmpty
                }
                #expect(subjects.map { $0["subject"] as? String } == ["ip:192.0.2.2", "ip:192.0.2.1"])
                #expect(subjects.allSatisfy { $0["limit"] as? Int == 10 && $0["window"] as? String == "1h" })
                #expect(refused.map { $0["subject"] as? String } == ["ip:192.0.2.2"])
                #expect(refused.map { $0["count"] as? Int } == [3])
            }
            let admin = try #require(nodes[1].admin)
            let top = try runSluice(["top", "--once", "--admin", "\(admin)"])
            #expect(top.output.contains("NEAR THEIR LIMIT") && top.output.contains("10 of 10"))
        }
    }

    @Test(
        "readyz says what speaks against a node that serves, and 503 when it leaves; healthz says that it lives",
        arguments: [
            ("share", "this node admits its share"), ("open", "nobody is limited"), ("closed", "whoever has a limit"),
        ])
    func readiness(rule: String, words: String) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend { exchange in
                usleep(300_000)
                try exchange.answer("late")
                return .keep
            }
            var file = File([backend])
            file.rateLimit =
                "redisURL: \"redis://127.0.0.1:\(redis.port)\", requestsPerSecond: 100, onRedisLoss: \(rule)"
            let node = try scene.node(file, ["--set", "gateway.drain.delay=1s"])
            try LimitTests.reached([node])
            func ready() throws -> (status: Int, reason: String?, warnings: [String]) {
                let answer = try node.admin("/readyz")
                let json = try JSONSerialization.jsonObject(with: Data(answer.text.utf8)) as? [String: Any]
                return (answer.status, json?["reason"] as? String, json?["warnings"] as? [String] ?? [])
            }
            #expect(try ready() == (200, "serving", []))
            #expect(try node.admin("/healthz").text.contains("\"status\":\"ok\""))
            try node.reload("gateway: [")
            #expect(try ready().status == 200)
            #expect(try ready().warnings.contains { $0.contains("the last configuration was refused") })
            try node.reload(file.yaml)
            #expect(try ready().warnings.isEmpty)
            redis.kill()
            try eventually("it says what the loss means") { try ready().warnings.contains { $0.contains(words) } }
            #expect(try ready().status == 200)
            let wire = try node.connect()
            try wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            node.process.signal(SIGTERM)
            try eventually("it leaves") { try ready().status == 503 }
            #expect(try ready().reason == "draining")
            #expect(try node.admin("/healthz").status == 200)
        }
    }

    @Test("events come as they happen, each once, and who comes back gets what it missed")
    func events() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend, try scene.backend()])
            file.services[0].health = "interval: 50ms, warningInterval: 50ms, timeout: 1s, failures: 2"
            let node = try scene.node(file)
            let admin = try #require(node.admin)
            let wire = try Wire.connect(to: admin)
            try wire.send("GET /api/events HTTP/1.1\r\nHost: \(admin)\r\n\r\n")
            let head = try #require(try wire.readHead())
            #expect(head.value("Content-Type") == "text/event-stream")
            #expect(try wire.readLine() == "retry: 2000")
            backend.stop()
            var ids: [Int] = []
            var found = false
            while !found, let line = try wire.readLine() {
                if line.hasPrefix("id: ") { ids.append(try #require(Int(line.dropFirst(4)))) }
                found = line.hasPrefix("data: {") && line.contains(backend.url)
            }
            #expect(found)
            #expect(ids == Array(Set(ids)).sorted())
            // Who has seen the last but one gets the last, whichever way it says so; the later word counts.
            let last = try #require(ids.last)
            let first = try #require(ids.first)
            for (query, field, next) in [
                ("?after=\(last - 1)", "", last), ("", "Last-Event-ID: \(last - 1)\r\n", last),
                ("?after=\(first)", "Last-Event-ID: \(last - 1)\r\n", last),
                // Of an earlier run, or of none.
                ("", "Last-Event-ID: 7\r\n", first), ("", "Last-Event-ID: \(last + 9_000_000_000)\r\n", first),
                ("?after=0", "Last-Event-ID: x\r\n", first),
            ] {
                let again = try Wire.connect(to: admin)
                try again.send("GET /api/events\(query) HTTP/1.1\r\nHost: \(admin)\r\n\(field)\r\n")
                _ = try again.readHead()
                #expect(try (0..<3).map { _ in try again.readLine() }.last == "id: \(next)", "\(query) \(field)")
            }
        }
    }

    @Test("an operator at the machine writes without ceremony; a web page and another user do not")
    func tokens() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend]))
            let admin = try #require(node.admin)
            let path = "\(node.runtimeDirectory)/sluice-admin-\(admin.port).token"
            let token = readFile(path)
            #expect(token.count == 32)
            let attributes = try FileManager.default.attributesOfItem(atPath: path)
            #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == 0o600)
            let arguments = ["backends", "drain", backend.url, "--admin", "\(admin)"]
            let operatorAsks = try runSluice(arguments, environment: ["XDG_RUNTIME_DIR": node.runtimeDirectory])
            #expect(operatorAsks.exit == 0, "\(operatorAsks.errors)")
            let stranger = try runSluice(arguments, environment: ["XDG_RUNTIME_DIR": "/nowhere"])
            #expect(stranger.errors.contains("401"))

            let target = "/api/backends/undrain?url=\(backend.url)"
            let bearer = "Authorization: Bearer \(token)\r\n"
            #expect(try node.admin(target, method: "POST").status == 401)
            let page = try node.admin(target, method: "POST", fields: bearer + "Origin: http://evil.example\r\n")
            #expect(page.status == 403)
            let rebound = try node.askAdmin(
                "GET /api/overview HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
            #expect(rebound.status == 421)
            #expect(try node.admin(target, method: "POST", fields: bearer).status == 200)
            #expect(try node.terminate() == 0)
            #expect(readFile(path).isEmpty)
        }
    }

    @Test("a listener beyond this machine wants a token, at the start and from who reads")
    func exposed() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let yaml = File([backend]).yaml.replacing("admin: \"127.0.0.1:0\"", with: "admin: \":0\"")
            let directory = try TemporaryDirectory()
            let refused = try runSluice(["check", "--config", try directory.write(yaml, to: "a.yaml")])
            #expect(refused.exit == 1)
            #expect(refused.errors.contains("gateway.adminToken"))
            let node = try scene.node(
                File([backend]), ["--set", "gateway.admin=:0", "--set", "gateway.adminToken=long-enough-a-token"])
            let port = try #require(node.admin).port
            let wire = try Wire.connect(to: SocketAddress(ip: .v4Loopback, port: port))
            func status(_ path: String, _ fields: String = "") throws -> Int {
                try wire.send("GET \(path) HTTP/1.1\r\nHost: 127.0.0.1\r\n\(fields)\r\n")
                return try wire.readResponse().status
            }
            #expect(try status("/healthz") == 200)
            #expect(try status("/readyz") == 200)
            #expect(try status("/metrics") == 401)
            #expect(try status("/") == 401)
            #expect(try status("/metrics", "Authorization: Bearer long-enough-a-token\r\n") == 200)
        }
    }

    @Test("the same in a terminal")
    func top() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend]))
            #expect(try node.ask().status == 200)
            let admin = try #require(node.admin)
            let once = try runSluice(["top", "--once", "--admin", "\(admin)"])
            #expect(once.exit == 0, "\(once.errors)")
            #expect(once.output.contains("SERVICE") && once.output.contains(backend.url))
            #expect(once.output.contains("serving"))
            #expect(!once.output.contains("\u{1b}"))
            let nobody = try runSluice(["top", "--once", "--admin", "127.0.0.1:1"])
            #expect(nobody.exit == 1)
            // What is no terminal gets one page, and no escapes.
            let piped = try runSluice(["top", "--admin", "\(admin)"])
            #expect(piped.exit == 0 && piped.output.hasPrefix("Sluice ") && !piped.output.contains("\u{1b}"))
            #expect(try runSluice(["top", "--admin", "127.0.0.1:1"]).exit == 1)
        }
    }

    @Test(
        "a terminal shows the top of what has no room in it, and has no line moved up",
        .enabled(if: isInstalled("/usr/bin/script"), "script is not installed"), arguments: [(6, 30), (60, 200)])
    func topOfTerminal(rows: Int, columns: Int) throws {
        try Scene.play { scene in
            let node = try scene.node(File([try scene.backend()]))
            let admin = try #require(node.admin)
            let binary = try SluiceNode.binary()
            let shell =
                "stty rows \(rows) cols \(columns); echo PID $$ END; exec '\(binary)' top --admin \(admin)"
            let terminal = try ChildProcess("/usr/bin/script", ["-qefc", shell, "/dev/null"])
            try eventually("a frame is there") { terminal.output.contains("\u{1b}[J") }
            let pid = try #require(terminal.output.firstMatch(of: /PID (\d+) END/)?.1)
            kill(try #require(pid_t(pid)), SIGINT)
            #expect(try terminal.waitForExit() == 0)
            // The terminal is as it was.
            #expect(terminal.output.hasSuffix("\u{1b}[?1049l"))
            let frame = try #require(terminal.output.split(separator: "\u{1b}[H").dropFirst().first)
            let plain = frame.replacing("\u{1b}[2K", with: "").replacing("\u{1b}[J", with: "")
            let lines = plain.prefix { $0 != "\u{1b}" }.split(separator: "\r\n", omittingEmptySubsequences: false)
            #expect(lines[0].hasPrefix("Sluice "))
            #expect(lines.count <= rows && lines.allSatisfy { $0.count <= columns })
            #expect(lines.contains { $0.contains("more lines") } == (rows == 6))
            #expect(lines.contains { $0.hasPrefix("NODE ") } == (rows == 60))
        }
    }
}
