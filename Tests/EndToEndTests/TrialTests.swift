import Primitives
import Synchronization
import TestSupport
import Testing

@Suite("Trials of half-open backends")
struct TrialTests {
    private final class Switch: Sendable {
        let fails = Atomic<Bool>(true)
    }

    /// A backend that fails until its breaker is half-open, and then answers as the script says.
    private struct Stage {
        let backend: RecordingBackend
        let nodes: [SluiceNode]
        var node: SluiceNode { nodes[0] }

        init(
            _ scene: Scene, _ nodes: [String] = ["a"], redis: RedisServer? = nil, openFor: String = "300ms",
            _ more: String = "",
            _ script: @escaping @Sendable (RecordingBackend.Exchange) throws -> RecordingBackend.Next = {
                try $0.answer("well")
                return .keep
            }
        ) throws {
            let power = Switch()
            backend = try scene.backend { exchange in
                guard power.fails.load(ordering: .relaxed) else { return try script(exchange) }
                try exchange.answer(status: "500 Oh")
                return .keep
            }
            var file = File([backend], "circuitBreaker: {failures: 3, openFor: \(openFor)}\(more)")
            file.services[0].health = "active: false, failures: 1000"
            if let redis { file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\"" }
            self.nodes = try nodes.map { try scene.node(file, ["--node-id", $0]) }
            if redis != nil { try LimitTests.reached(self.nodes) }
            for _ in 0..<3 { #expect(try node.ask().status == 500) }
            try eventually("all have heard") { try self.nodes.allSatisfy { try breaker($0) != "closed" } }
            power.fails.store(false, ordering: .relaxed)
            // Told, and not only by the clock: the workers know of it then.
            try eventually("it is half-open") {
                try self.nodes.allSatisfy { try $0.log.contains(" is half-open: ") && breaker($0) == "half-open" }
            }
        }

        func breaker(_ node: SluiceNode) throws -> String {
            let row = try node.row(of: backend.url)
            guard let start = row.firstRange(of: "\"breaker\":\"")?.upperBound else { return "" }
            return String(row[start...].prefix { $0 != "\"" })
        }

        var openings: Int { node.log.components(of: " is open: ") }
    }

    @Test("an upgrade that is answered with 101 has succeeded, however long its tunnel lives")
    func tunnel() throws {
        try Scene.play { scene in
            let stage = try Stage(scene) { exchange in
                guard exchange.request.value("Upgrade") != nil else {
                    try exchange.answer("well")
                    return .keep
                }
                try exchange.wire.send(TunnelScene.answer)
                while true { try exchange.wire.send(try exchange.wire.read(1)) }
            }
            let client = try TunnelScene.open(stage.node)
            try eventually("it is closed") { try stage.breaker(stage.node) == "closed" }
            #expect(try stage.node.ask().text == "well")
            try client.send("still here")
            #expect(try client.read(10) == Array("still here".utf8))
            #expect(stage.openings == 1)
        }
    }

    @Test(
        "a client that goes away says nothing of the backend: the next request of the cluster is the next trial",
        arguments: [
            "GET /hang HTTP/1.1\r\nHost: test\r\n\r\n",
            "POST /hang HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc",
            "POST /hang HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ])
    func clientGone(request: String) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let stage = try Stage(scene, ["a", "b"], redis: redis) { exchange in
                if exchange.request.target == "/hang" {
                    _ = try exchange.wire.endsHere()
                    return .close
                }
                try exchange.answer("well")
                return .keep
            }
            let key = "sluice:trial:main:1:\(stage.backend.url)"
            do {
                let client = try stage.node.connect()
                try client.send(request)
                try eventually("the trial is under way") {
                    try stage.node.row(of: stage.backend.url).contains("\"inFlight\":1,")
                }
                #expect(try redis.client()("GET", key) == "'a'")
                #expect(try stage.node.ask().status == 503)
                client.resetOnClose()
            }
            try eventually("the claim is given back") { try redis.client()("EXISTS", key) == "0" }
            #expect(try stage.breaker(stage.node) == "half-open")
            #expect(stage.openings == 1)
            #expect(try stage.nodes[1].ask().text == "well")
            for node in stage.nodes { try eventually("it is closed") { try stage.breaker(node) == "closed" } }
        }
    }

    @Test("a trial has succeeded when its answer is whole, and not when its head is here")
    func brokenOff() throws {
        try Scene.play { scene in
            let stage = try Stage(scene) { exchange in
                try exchange.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
                return .close
            }
            #expect(throws: WireError.self) { try stage.node.ask() }
            try eventually("it is open again") { stage.openings == 2 }
            #expect(stage.node.log.contains("the answer to the trial, 200, broke off"))
        }
    }

    @Test("a stream has succeeded after a second, and holds the trial from nobody until it ends")
    func stream() throws {
        try Scene.play { scene in
            let stage = try Stage(scene) { exchange in
                guard exchange.request.target == "/events" else {
                    try exchange.answer("well")
                    return .keep
                }
                try exchange.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nevent\n\r\n")
                _ = try exchange.wire.endsHere()
                return .close
            }
            let client = try stage.node.connect()
            try client.send("GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
            #expect(try client.readHead()?.status == 200)
            #expect(try stage.breaker(stage.node) == "half-open")
            try eventually("it is closed") { try stage.breaker(stage.node) == "closed" }
            #expect(try stage.node.ask().text == "well")
            #expect(stage.openings == 1)
        }
    }

    @Test("what the client has chosen is no failure of the trial", arguments: ["404 Not Found", "501 Not Implemented"])
    func clientsChoice(status: String) throws {
        try Scene.play { scene in
            let stage = try Stage(scene) { exchange in
                try exchange.answer(status: status)
                return .keep
            }
            #expect(try stage.node.ask().status == Int(status.prefix(3)))
            try eventually("it is closed") { try stage.breaker(stage.node) == "closed" }
            #expect(stage.openings == 1)
        }
    }

    /// How long it waits for that is the machine's to decide, and tested there, where time is played.
    @Test("while Redis hangs, a request that asks for the trial is answered, and tries when Redis is back")
    func hangingRedis() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let stage = try Stage(scene, redis: redis)
            redis.pause()
            defer { redis.resume() }
            #expect(try stage.node.ask().status == 503)
            redis.resume()
            try eventually("it is closed") { try stage.node.ask().text == "well" }
        }
    }
}
