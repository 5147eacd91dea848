import Primitives
import TestSupport
import Testing
import Yams

@Suite("The admin listener's description")
struct OpenAPITests {
    /// A node with everything that can show: a cluster, limits, a dead backend, an operator's word, somebody refused.
    private func node(_ scene: Scene) throws -> SluiceNode {
        let redis = try scene.redis()
        let dead = try scene.backend()
        let drained = try scene.backend()
        dead.stop()
        var file = File(
            [try scene.backend(), dead, drained], "strategy: least_connections, leastConnections: {scope: cluster}")
        file.services[0].health = "interval: 50ms, warningInterval: 50ms, timeout: 1s, failures: 2"
        file.gateway = "heartbeat: 100ms, adminToken: \(Self.token)"
        file.rateLimit =
            "redisURL: \"redis://127.0.0.1:\(redis.port)\", requestsPerSecond: 100, "
            + "policies: [{name: few, limit: 1, window: 1h, key: global}]"
        let node = try scene.node(file)
        try LimitTests.reached([node])
        for _ in 0..<3 { _ = try node.ask() }
        let word = try node.admin("/api/backends/drain?url=\(drained.url)&by=me", method: "POST", fields: Self.bearer)
        #expect(word.status == 200)
        try eventually("the dead backend is down") { try node.admin("/api/backends").text.contains("\"lastError\":") }
        return node
    }

    private static let token = "a-token-of-some-length"
    private static let bearer = "Authorization: Bearer \(token)\r\n"

    @Test("every documented path answers as documented, and nothing that it says is undocumented")
    func paths() throws {
        let text = readFile(sourceTree() + "/docs/openapi.yaml")
        let document = try #require(try Yams.load(yaml: text) as? [String: Any])
        let checker = SchemaChecker(root: document)
        let paths = try #require(document["paths"] as? [String: Any])
        #expect(paths.count > 10)
        try Scene.play { scene in
            let node = try node(scene)
            let admin = try #require(node.admin)
            for (path, item) in paths {
                for (method, operation) in try #require(item as? [String: Any]) {
                    let operation = try #require(operation as? [String: Any])
                    let responses = try #require(operation["responses"] as? [String: Any])
                    var target = path.replacing("{word}", with: "undrain")
                    if target != path { target += "?url=http://nowhere:1" }
                    let fields = operation["security"] == nil ? "" : Self.bearer
                    let status: Int
                    let type: String
                    var body = ""
                    if path == "/api/events" {
                        let wire = try Wire.connect(to: admin)
                        try wire.send("GET \(target) HTTP/1.1\r\nHost: \(admin)\r\n\r\n")
                        let head = try #require(try wire.readHead())
                        (status, type) = (head.status, head.value("Content-Type") ?? "")
                    } else {
                        let answer = try node.admin(target, method: method.uppercased(), fields: fields)
                        (status, type, body) = (answer.status, answer.value("Content-Type") ?? "", answer.text)
                    }
                    let response = try #require(responses["\(status)"] as? [String: Any], "\(path): \(status)")
                    let contents = try #require(response["content"] as? [String: Any])
                    let plain = String(type.prefix { $0 != ";" })
                    let content = try #require(contents[plain] as? [String: Any], "\(path): \(type)")
                    let schema = try #require(content["schema"] as? [String: Any])
                    guard plain.hasSuffix("json") else { continue }
                    // JSON is YAML, and this reader tells numbers from Booleans.
                    let faults = checker.faults(try #require(try Yams.load(yaml: body)), schema, at: path)
                    #expect(faults.isEmpty, "\(faults)")
                }
            }
            let word = try node.admin("/api/backends/drain?url=http://nowhere:1", method: "POST")
            #expect(word.status == 401)
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
private struct SchemaChecker {
    let root: [String: Any]

    func faults(_ value: Any, _ schema: [String: Any], at path: String = "$") -> [String] {
        if let reference = schema["$ref"] as? String { return faults(value, resolve(reference), at: path) }
        if let words = schema["enum"] as? [String] {
            return (value as? String).map(words.contains) ?? false ? [] : ["\(path): \(value) is none of \(words)"]
        }
        let fits: Bool
        switch schema["type"] as? String {
        case "object": return objectFaults(value, schema, path)
        case "array":
            guard let list = value as? [Any], let items = schema["items"] as? [String: Any] else {
                return ["\(path): \(value) is no array"]
            }
            return list.enumerated().flatMap { faults($1, items, at: "\(path)[\($0)]") }
        case "string": fits = value is String
        case "boolean": fits = value is Bool
        case "integer": fits = value is Int
        case "number": fits = value is Int || value is Double
        default: fits = false
        }
        return fits ? [] : ["\(path): \(value) is not \(schema)"]
    }

    private func objectFaults(_ value: Any, _ schema: [String: Any], _ path: String) -> [String] {
        guard let object = value as? [String: Any] else { return ["\(path): \(value) is no object"] }
        let properties = schema["properties"] as? [String: Any] ?? [:]
        var faults: [String] = []
        for name in schema["required"] as? [String] ?? [] where object[name] == nil {
            faults.append("\(path).\(name) is missing")
        }
        for (name, member) in object {
            if let known = properties[name] as? [String: Any] {
                faults += self.faults(member, known, at: "\(path).\(name)")
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
