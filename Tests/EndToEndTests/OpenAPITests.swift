import Glibc
import Primitives
import TestSupport
import Testing
import TokenSupport
import Yams

@Suite("The admin listener's description")
struct OpenAPITests {
    private static let token = "a-token-of-some-length"
    private static let bearer = "Authorization: Bearer \(token)\r\n"

    private struct Stage {
        let node: SluiceNode
        let file: File
        let drained: RecordingBackend
    }

    /// A node with everything that can show: a cluster whose configuration it follows, limits, a dead backend, an
    /// operator's word, somebody refused, a crash of its process before.
    private func stage(_ scene: Scene) throws -> Stage {
        let redis = try scene.redis()
        let dead = try scene.backend()
        let drained = try scene.backend()
        dead.stop()
        var file = File(
            [try scene.backend(), dead, drained], "strategy: least_connections, leastConnections: {scope: cluster}")
        file.services[0].health = "interval: 50ms, warningInterval: 50ms, timeout: 1s, failures: 2"
        file.gateway = "heartbeat: 100ms, adminToken: \(Self.token)"
        file.rateLimit =
            "redisURL: \"redis://127.0.0.1:\(redis.port)\", requestsPerSecond: 100, policies: ["
            + "{name: few, limit: 1, window: 1h, key: global, tiers: {gold: 9}}]"
        file.services[0].more += ", auth: optional"
        file.auth = "apiKeys: {keys: [{name: job, hash: \"\(TokenSigner.hash("slc_0000"))\", tier: gold}]}"
        let node = try scene.node(
            file, ["--set", "config.from=redis"],
            environment: ["SLUICE_CRASHES": "1", "SLUICE_LAST_CRASH": "signal 11"])
        try LimitTests.reached([node])
        for _ in 0..<3 { _ = try node.ask() }
        #expect(try node.ask(fields: "X-API-Key: slc_0000\r\n").status == 200)
        let word = try node.admin("/api/backends/drain?url=\(drained.url)&by=me", method: "POST", fields: Self.bearer)
        #expect(word.status == 200)
        try eventually("the dead backend is down") { try node.admin("/api/backends").text.contains("\"lastError\":") }
        try eventually("the settings are known") { try node.admin("/api/config").text.contains("\"key\":") }
        try eventually("two looks at the traffic have been taken") {
            try node.admin("/api/overview").text.contains("\"points\":[[")
        }
        return Stage(node: node, file: file, drained: drained)
    }

    /// As `docs/openapi.yaml` has it.
    private static func document() throws -> [String: Any] {
        try #require(try Yams.load(yaml: readFile(sourceTree() + "/docs/openapi.yaml")) as? [String: Any])
    }

    /// The one answer that does not end: its first event.
    private func event(_ node: SluiceNode) throws -> String {
        let admin = try #require(node.admin)
        let wire = try Wire.connect(to: admin)
        try wire.send("GET /api/events HTTP/1.1\r\nHost: \(admin)\r\n\r\n")
        let head = try #require(try wire.readHead())
        #expect(head.status == 200)
        #expect(head.value("Content-Type") == "text/event-stream")
        while let line = try wire.readLine() { if line.hasPrefix("data: ") { return String(line.dropFirst(6)) } }
        return ""
    }

    @Test("every path and field that is documented is answered as documented, and none is answered that is not")
    func paths() throws {
        let document = try Self.document()
        let checker = SchemaChecker(root: document)
        let paths = try #require(document["paths"] as? [String: Any])
        try Scene.play { scene in
            let stage = try stage(scene)
            let node = stage.node
            var asked: Set<String> = []
            func check(_ method: String, _ path: String, _ target: String, body: String = "") throws -> WireMessage {
                asked.insert("\(method) \(path)")
                let item = try #require(paths[path] as? [String: Any], "\(path)")
                let operation = try #require(item[method.lowercased()] as? [String: Any], "\(method) \(path)")
                let responses = try #require(operation["responses"] as? [String: Any])
                let fields = operation["security"] == nil ? "" : Self.bearer
                let length = body.isEmpty ? "" : "Content-Length: \(body.utf8.count)\r\n"
                let head = "\(method) \(target) HTTP/1.1\r\nHost: ADMIN\r\nConnection: close\r\n\(fields)\(length)\r\n"
                let answer = try node.askAdmin(head + body)
                let response = try #require(
                    responses["\(answer.status)"] as? [String: Any], "\(path): \(answer.text)")
                let contents = try #require(response["content"] as? [String: Any])
                let type = String((answer.value("Content-Type") ?? "").prefix { $0 != ";" })
                let content = try #require(contents[type] as? [String: Any], "\(path): \(type)")
                let schema = try #require(content["schema"] as? [String: Any])
                guard type.hasSuffix("json") else { return answer }
                // JSON is YAML, and this reader tells numbers from Booleans.
                let value = try #require(try Yams.load(yaml: answer.text))
                let faults = checker.faults(value, schema, at: path)
                #expect(faults.isEmpty, "\(faults)")
                return answer
            }

            // Another version for the cluster, and the former one again.
            for (path, query, body) in [
                ("/api/config/push", "?by=me", stage.file.yaml), ("/api/config/rollback", "?to=1&by=me", ""),
            ] {
                #expect(try check("POST", path, path + query, body: body).status == 202)
                try eventually("it is in force") {
                    try node.admin("/api/config/rollout").text.contains("\"state\":\"switched\"")
                }
            }
            let push = "/api/config/push"
            #expect(try check("POST", push, push + "?by=me", body: "services: [a]").status == 202)
            try eventually("it is refused") {
                try node.admin("/api/config/rollout").text.contains("\"state\":\"refused\"")
            }
            #expect(try check("POST", "/api/config/push", "/api/config/push").status == 400)
            #expect(try check("POST", "/api/config/rollback", "/api/config/rollback").status == 400)
            #expect(try check("POST", "/api/backends/{word}", "/api/backends/undrain").status == 400)
            let undrain = "/api/backends/undrain?url="
            #expect(try check("POST", "/api/backends/{word}", undrain + "http://nowhere:1").status == 404)
            #expect(try check("POST", "/api/backends/{word}", undrain + stage.drained.url).status == 200)
            _ = try check("POST", "/api/backends/{word}", "/api/backends/drain?by=me&url=" + stage.drained.url)

            // Neither a reload nor a new process can make sense of this.
            try node.write("gateway: [")
            #expect(try check("POST", "/api/reload", "/api/reload?wait=true").status == 200)
            #expect(try check("POST", "/api/reload", "/api/reload").status == 202)
            try eventually("the reload has failed") { try node.admin("/api/config").text.contains("lastError") }
            #expect(try check("POST", "/api/upgrade", "/api/upgrade").status == 202)
            try eventually("the upgrade has failed") { try node.admin("/api/node").text.contains("\"reason\":") }
            #expect(try node.ask().status != 0)

            asked.insert("GET /api/events")
            let event = try #require(try Yams.load(yaml: try event(node)))
            let faults = checker.faults(event, ["$ref": "#/components/schemas/Event"])
            #expect(faults.isEmpty, "\(faults)")
            for path in paths.keys where !asked.contains("GET \(path)") {
                guard (paths[path] as? [String: Any])?["get"] != nil else { continue }
                #expect(try check("GET", path, path).status == 200, "\(path)")
            }
            let word = try node.admin("/api/backends/drain?url=http://nowhere:1", method: "POST")
            #expect(word.status == 401)
            try node.write(stage.file.yaml)
            let upgraded = try check("POST", "/api/upgrade", "/api/upgrade?wait=true")
            #expect(upgraded.status == 200)
            let successor = try #require(upgraded.text.firstRange(of: "\"successor\":")?.upperBound)
            _ = kill(try #require(pid_t(upgraded.text[successor...].prefix { $0.isNumber })), SIGTERM)
            for (path, item) in paths {
                for method in (item as? [String: Any] ?? [:]).keys {
                    #expect(asked.contains("\(method.uppercased()) \(path)"))
                }
            }
        }
        #expect(checker.unanswered.isEmpty, "\(checker.unanswered)")
    }

    @Test("what the gate refuses is documented wherever it refuses")
    func gate() throws {
        let document = try Self.document()
        let checker = SchemaChecker(root: document)
        let paths = try #require(document["paths"] as? [String: [String: Any]])
        try Scene.play { scene in
            let file = File([try scene.backend()])
            let near = try scene.node(file)
            let far = try scene.node(
                file, ["--set", "gateway.admin=:0", "--set", "gateway.adminToken=\(Self.token)"])
            let open = ["/healthz", "/readyz"]
            for (path, item) in paths {
                let target = path.replacing("{word}", with: "drain")
                for (method, operation) in item {
                    let operation = try #require(operation as? [String: Any])
                    let responses = try #require(operation["responses"] as? [String: [String: Any]])
                    func refused(_ node: SluiceNode, _ host: String) throws -> Int {
                        let port = try #require(node.admin).port
                        let wire = try Wire.connect(to: SocketAddress(ip: .v4Loopback, port: port))
                        try wire.send(
                            "\(method.uppercased()) \(target) HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\r\n")
                        let answer = try wire.readResponse()
                        guard answer.status >= 300 else { return answer.status }
                        let known = try #require(responses["\(answer.status)"], "\(method) \(path) \(answer.status)")
                        let content = try #require(known["content"] as? [String: [String: Any]])
                        let schema = try #require(content["application/problem+json"]?["schema"] as? [String: Any])
                        let value = try #require(try Yams.load(yaml: answer.text))
                        #expect(checker.faults(value, schema, at: path).isEmpty)
                        return answer.status
                    }
                    #expect(try refused(near, "evil.example") == (open.contains(path) ? 200 : 421), "\(path)")
                    #expect(try refused(far, "evil.example") == (open.contains(path) ? 200 : 421), "\(path)")
                    #expect(try refused(far, "127.0.0.1") == (open.contains(path) ? 200 : 401), "\(path)")
                }
            }
        }
    }

    @Test("every path that the sources answer is documented")
    func routes() throws {
        let paths = try #require(try Self.document()["paths"] as? [String: Any])
        let documented = Set(paths.keys.map { $0.replacing("{word}", with: "") })
        var routes: Set<String> = []
        for name in ["AdminServer", "AdminConfiguration", "AdminLifecycle", "AdminWords", "AdminGate"] {
            let text = readFile("\(sourceTree())/Sources/Admin/\(name).swift")
            for match in text.matches(of: /"(\/(?:api\/)?[a-z.\/]*)"/) { routes.insert(String(match.1)) }
        }
        #expect(routes == documented)
    }

    @Test("the settings of a node's configuration are those that config show prints, secrets masked")
    func settings() throws {
        try Scene.play { scene in
            var file = File([try scene.backend()])
            file.gateway = "adminToken: \(Self.token)"
            let node = try scene.node(file, ["--set", "gateway.timeout=7s"])
            var answer = ""
            try eventually("the settings are known") {
                answer = try node.admin("/api/config").text
                return answer.contains("\"key\":")
            }
            let shown = try runSluice([
                "config", "show", "--json", "--config", node.file, "--set", "gateway.timeout=7s",
            ])
            let rows = try #require(try Yams.load(yaml: shown.output) as? [[String: String]])
            let config = try #require(try Yams.load(yaml: answer) as? [String: Any])
            #expect(config["settings"] as? [[String: String]] == rows)
            #expect(rows.contains { $0["key"] == "gateway.timeout" && $0["origin"] == "--set" })
            #expect(!answer.contains(Self.token))
            let other = file.yaml.replacing("workers: 1", with: "workers: 1, via: other")
            #expect(try node.reload(other).contains("\"other\""))
        }
    }

    @Test("the checker finds what is missing, of another type, or not documented")
    func checker() throws {
        let schema =
            try Yams.load(
                yaml: """
                    {type: object, required: [a], properties: {a: {type: integer}, b: {type: array, items: {enum: [x]}},
                     c: {type: boolean}, d: {type: number}, e: {type: object, additionalProperties: {type: string}}}}
                    """) as? [String: Any] ?? [:]
        let checker = SchemaChecker(root: [:])
        func faults(_ json: String) throws -> Int { checker.faults(try Yams.load(yaml: json) as Any, schema).count }
        #expect(try faults("{\"a\":1,\"b\":[\"x\"],\"c\":true,\"d\":1.5,\"e\":{\"f\":\"1\"}}") == 0)
        #expect(try faults("{\"a\":1,\"d\":2}") == 0)
        for wrong in [
            "{}", "{\"a\":true}", "{\"a\":\"1\"}", "{\"a\":1.5}", "{\"a\":1,\"b\":[\"y\"]}", "{\"a\":1,\"b\":\"x\"}",
            "{\"a\":1,\"c\":1}", "{\"a\":1,\"d\":\"2\"}", "{\"a\":1,\"e\":{\"f\":1}}", "{\"a\":1,\"z\":1}", "[]",
        ] { #expect(try faults(wrong) == 1, "\(wrong)") }
    }
}

/// As much of JSON Schema as docs/openapi.yaml uses.
private final class SchemaChecker {
    private let root: [String: Any]
    /// Fields that were answered, as `Schema.field.field`.
    private var seen: Set<String> = []

    init(root: [String: Any]) { self.root = root }

    /// Documented fields of `components` that no answer had.
    var unanswered: [String] {
        let schemas = resolve("#/components/schemas")
        let all = schemas.flatMap { name, schema in Self.fields(schema as? [String: Any] ?? [:], name) }
        return Set(all).subtracting(seen).sorted()
    }

    private static func fields(_ schema: [String: Any], _ place: String) -> [String] {
        let items = (schema["items"] as? [String: Any]).map { fields($0, place) } ?? []
        let properties = schema["properties"] as? [String: Any] ?? [:]
        return items
            + properties.flatMap { name, schema in
                ["\(place).\(name)"] + fields(schema as? [String: Any] ?? [:], "\(place).\(name)")
            }
    }

    /// - Parameter place: the schema's own, where it is one of a document.
    func faults(_ value: Any, _ schema: [String: Any], at path: String = "$", in place: String = "") -> [String] {
        if let reference = schema["$ref"] as? String {
            return faults(value, resolve(reference), at: path, in: String(reference.split(separator: "/").last ?? ""))
        }
        if let words = schema["enum"] as? [String] {
            return (value as? String).map(words.contains) ?? false ? [] : ["\(path): \(value) is none of \(words)"]
        }
        let fits: Bool
        switch schema["type"] as? String {
        case "object": return objectFaults(value, schema, path, place)
        case "array":
            guard let list = value as? [Any], let items = schema["items"] as? [String: Any] else {
                return ["\(path): \(value) is no array"]
            }
            return list.enumerated().flatMap { faults($1, items, at: "\(path)[\($0)]", in: place) }
        case "string": fits = value is String
        case "boolean": fits = value is Bool
        case "integer": fits = value is Int
        case "number": fits = value is Int || value is Double
        default: fits = false
        }
        return fits ? [] : ["\(path): \(value) is not \(schema)"]
    }

    private func objectFaults(
        _ value: Any, _ schema: [String: Any], _ path: String, _ place: String
    ) -> [String] {
        guard let object = value as? [String: Any] else { return ["\(path): \(value) is no object"] }
        let properties = schema["properties"] as? [String: Any] ?? [:]
        var faults: [String] = []
        for name in schema["required"] as? [String] ?? [] where object[name] == nil {
            faults.append("\(path).\(name) is missing")
        }
        for (name, member) in object {
            if let known = properties[name] as? [String: Any] {
                seen.insert("\(place).\(name)")
                faults += self.faults(member, known, at: "\(path).\(name)", in: "\(place).\(name)")
            } else if let rest = schema["additionalProperties"] as? [String: Any] {
                faults += self.faults(member, rest, at: "\(path).\(name)")
            } else {
                faults.append("\(path).\(name) is not documented")
            }
        }
        return faults
    }

    private func resolve(_ reference: String) -> [String: Any] {
        reference.split(separator: "/").dropFirst().reduce(root) { $0[String($1)] as? [String: Any] ?? [:] }
    }
}
