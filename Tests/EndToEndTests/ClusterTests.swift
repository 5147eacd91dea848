import Primitives
import TestSupport
import Testing

@Suite("Health, membership and the admin listener")
struct ClusterTests {
    private static let fast =
        "interval: 50ms, warningInterval: 50ms, downInterval: 50ms, timeout: 1s, failures: 2, successes: 2, cooldown: 50ms"

    /// A node's row about a backend.
    private func row(_ node: SluiceNode, _ backend: RecordingBackend) throws -> Substring {
        let rows = try node.admin("/api/backends").text.split(separator: "{\"available\":")
        return rows.first { $0.contains("\"url\":\"\(backend.url)\"") } ?? ""
    }

    private func isDown(_ node: SluiceNode, _ backend: RecordingBackend) throws -> Bool {
        try row(node, backend).contains("\"state\":\"down\"")
    }

    /// Up for the cluster, and in use by this node: one that has seen it fail waits for its own evidence.
    private func isInUse(_ node: SluiceNode, _ backend: RecordingBackend) throws -> Bool {
        let row = try row(node, backend)
        return row.contains("\"state\":\"up\"") && row.hasPrefix("true")
    }

    @Test("a dead backend leaves the view of every node and comes back, and no request fails meanwhile")
    func killedBackend() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let dying = try scene.backend(named: "dying")
            let steady = try scene.backend(named: "steady")
            var file = File([dying, steady])
            file.services[0].health = Self.fast
            file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let nodes = [try scene.node(file, ["--node-id", "a"]), try scene.node(file, ["--node-id", "b"])]
            try LimitTests.reached(nodes)
            for node in nodes { try eventually("it is up") { try isInUse(node, dying) } }
            dying.stop()
            var answers: [WireMessage] = []
            for node in nodes {
                try eventually("it is down") {
                    answers.append(try node.ask())
                    return try isDown(node, dying)
                }
            }
            #expect(answers.allSatisfy { $0.status == 200 })
            let before = dying.requests.count
            for node in nodes { for _ in 0..<10 { #expect(try node.ask().text == "steady") } }
            #expect(dying.requests.count == before)

            let reborn = try scene.backend(named: "reborn", port: dying.address.port)
            for node in nodes { try eventually("it is up again") { try isInUse(node, reborn) } }
            for node in nodes {
                // Up for all by quorum; a node whose own probes are behind avoids it a little longer.
                try eventually("its own probes agree") { try node.ask().text == "reborn" }
                let texts = try (0..<10).map { _ in try node.ask().text }
                #expect(texts.count { $0 == "reborn" } == 5)
            }
        }
    }

    @Test("a backend that answers its probes with errors is taken out, without Redis too")
    func unhealthyAnswers() throws {
        try Scene.play { scene in
            let sick = scene.add(
                try RecordingBackend(serving: { backend, wire, _ in
                    while let request = try wire.readRequest() {
                        if request.target != "/health" { backend.record(request) }
                        let status = request.target == "/health" ? "500 Internal Server Error" : "200 OK"
                        try wire.send("HTTP/1.1 \(status)\r\nContent-Length: 0\r\n\r\n")
                    }
                }))
            let well = try scene.backend(named: "well")
            var file = File([sick, well])
            file.services[0].health = Self.fast
            let node = try scene.node(file)
            try eventually("it is down") { try isDown(node, sick) }
            let before = sick.requests.count
            for _ in 0..<10 { #expect(try node.ask().text == "well") }
            #expect(sick.requests.count == before)
        }
    }

    @Test("traffic alone is evidence enough, and the last backend stays")
    func passive() throws {
        try Scene.play { scene in
            let failing = try scene.backend {
                try $0.answer("", status: "500 Internal Server Error")
                return .keep
            }
            let well = try scene.backend(named: "well")
            var file = File([failing, well])
            file.services[0].health = "active: false, failures: 3, cooldown: 1h"
            let node = try scene.node(file)
            try eventually("it gets no more requests") {
                try (0..<4).allSatisfy { _ in try node.ask().text == "well" }
            }
            #expect(failing.requests.count >= 3)

            let alone = try scene.node(File([failing]))
            for _ in 0..<10 { #expect(try alone.ask().status == 500) }
        }
    }

    @Test("nodes see each other, and a node that leaves is gone")
    func membership() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            var file = File([backend])
            file.gateway = "heartbeat: 100ms"
            file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let nodes = try ["a", "b", "c"].map { try scene.node(file, ["--node-id", $0]) }
            for node in nodes {
                try eventually("it sees three") {
                    let text = try node.admin("/api/nodes").text
                    return ["a", "b", "c"].allSatisfy { text.contains("\"id\":\"\($0)\"") }
                }
            }
            #expect(try nodes[0].admin("/api/nodes").text.contains("\"address\":\"\(nodes[1].address)\""))
            #expect(try redis.client()("ZCARD", "sluice:nodes") == "3")
            #expect(try nodes[2].terminate() == 0)
            nodes[1].kill()
            try eventually("the others are gone") {
                let text = try nodes[0].admin("/api/nodes").text
                return text.components(of: "\"id\"") == 1
            }
        }
    }

    @Test("the admin listener answers as documented, and refuses the rest")
    func admin() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            let node = try scene.node(File([backend]), ["--node-id", "only"])
            #expect(try node.admin("/healthz").text == "{\"node\":\"only\",\"status\":\"ok\"}\n")
            let ready = try node.admin("/readyz").text
            #expect(ready.hasPrefix("{\"cluster\":\"alone\",\"connections\":{\"max\":"))
            #expect(
                ready.hasSuffix(
                    ",\"open\":0,\"refused\":0,\"refusedProxyHeaders\":0,\"scarce\":false,\"shed\":0},\"limits\":\"alone\",\"ready\":true,\"reason\":\"serving\",\"warnings\":[]}\n"
                ))
            #expect(try node.admin("/readyz?x=1").status == 200)
            let backends = try node.admin("/api/backends")
            #expect(backends.value("Content-Type") == "application/json")
            for part in [
                "\"service\":\"main\"", "\"url\":\"\(backend.url)\"", "\"state\":\"up\"", "\"since\":", "\"reason\":",
                "\"votes\":",
            ] {
                #expect(backends.text.contains(part), "\(part)")
            }
            let nodes = try node.admin("/api/nodes").text
            #expect(nodes.contains("\"id\":\"only\""))
            #expect(nodes.contains("\"lastSeen\":"))
            #expect(try node.admin("/nothing").status == 404)
            let address = try #require(node.admin)
            let refused = try Wire.connect(to: address)
            try refused.send("POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
            #expect(try refused.readResponse().status == 421)
            // Nobody waits for the body of a request that is refused.
            #expect(try refused.endsHere())
            let wire = try Wire.connect(to: address)
            try wire.send("HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try wire.readResponse(to: "HEAD").status == 200)
            #expect(try wire.readResponse().status == 200)
            try wire.send("rubbish\r\n\r\n")
            #expect(try wire.readResponse().status == 400)
            #expect(try wire.endsHere())
        }
    }
}
