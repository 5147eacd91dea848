import Primitives
import TestSupport
import Testing

/// Whoever can write to Redis can write whatever he likes where the nodes read. They must not fall over it, and must go
/// on telling each other the truth.
@Suite("Forged news")
struct ForgedNewsTests {
    private func cluster(
        _ scene: Scene, _ backends: [RecordingBackend], gateway: String = ""
    ) throws -> ([SluiceNode], RedisServer) {
        let redis = try scene.redis()
        var file = File(backends, "circuitBreaker: {failures: 1000}")
        file.services[0].health =
            "interval: 200ms, warningInterval: 100ms, downInterval: 100ms, timeout: 5s, cooldown: 200ms, cooldownMax: 1s"
        file.gateway = "heartbeat: 200ms" + gateway
        file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
        let nodes = try ["a", "b", "c"].map { try scene.node(file, ["--node-id", $0]) }
        for node in nodes {
            try eventually("it sees all") { try node.admin("/api/nodes").text.components(of: "\"id\":") == 3 }
        }
        return (nodes, redis)
    }

    /// A backend that dies is down for all, and is used again by all when it is back.
    private func works(_ scene: Scene, _ nodes: [SluiceNode], _ backend: inout RecordingBackend) throws {
        backend.stop()
        for node in nodes {
            try eventually("it is down") {
                _ = try node.ask()
                return try node.calls(backend.url, "down")
            }
        }
        backend = try scene.backend(named: "reborn", port: backend.address.port)
        for node in nodes { try eventually("it is used again") { try node.uses(backend.url) } }
    }

    @Test("messages and fields of any shape are ignored with a reason, and nothing changes by them")
    func shapes() throws {
        try Scene.play { scene in
            var dying = try scene.backend(named: "dying")
            let steady = try scene.backend(named: "steady")
            let (nodes, redis) = try cluster(scene, [dying, steady])
            let client = try redis.client()
            let long = String(repeating: "x", count: 64 << 10)
            let deep = String(repeating: "[", count: 4_000)
            func verdict(_ node: String, _ boot: String, _ sequence: String, _ service: String = "main") -> String {
                "{\"backend\":\"\(steady.url)\",\"boot\":\"\(boot)\",\"evidence\":\"forged\",\"kind\":\"probe\",\"node\":\"\(node)\","
                    + "\"sequence\":\(sequence),\"service\":\"\(service)\",\"since\":1,\"state\":\"down\"}"
            }
            let rubbish = [
                "", "x", "{}", "[]", "null", "1e999", "\"", deep, long, "\u{0}\u{1}", verdict("a", "0", "1"),
                verdict("a b", "0000000000000000", "1"), verdict("x", "ffffffffffffffff", "-1"),
                verdict("x", "ffffffffffffffff", "1.5"), verdict("x", "ffffffffffffffff", "18446744073709551616"),
                // Shapes are right here; the service, the backend or the author is nobody's.
                verdict("a", "ffffffffffffffff", "9", "elsewhere"),
                verdict("ghost", "ffffffffffffffff", "18446744073709551615"),
                verdict("phantom", "0000000000000001", "1"),
            ]
            let channels = ["sluice:health", "sluice:probes", "sluice:breaker", "sluice:load", "sluice:operators"]
            for text in rubbish {
                for channel in channels { try client("PUBLISH", channel, text) }
                for key in ["health", "probes", "breaker"] {
                    try client("HSET", "sluice:\(key):main", text.count < 9_999 ? text : "long", text)
                    try client("HSET", "sluice:\(key):main", "\(steady.url)|ghost\(text.utf8.count)", text)
                }
                try client("HSET", "sluice:operators", "main|\(text)", text)
                try client("HSET", "sluice:nodes:info", text, text)
            }
            for node in nodes { try eventually("it says so") { node.log.contains("ignored; the last one") } }
            try works(scene, nodes, &dying)
            for node in nodes {
                try eventually("it has Redis") { try node.isReached() }
                try eventually("nobody speaks against the other") {
                    try node.row(of: steady.url).contains("\"votes\":{\"a\":\"up\",\"b\":\"up\",\"c\":\"up\"}")
                }
                #expect(try node.ask().status == 200)
            }
        }
    }

    @Test("hashes that hold more than any cluster writes, or are none, are left alone; the channel has to do")
    func sizes() throws {
        try Scene.play { scene in
            var dying = try scene.backend(named: "dying")
            let steady = try scene.backend(named: "steady")
            let (nodes, redis) = try cluster(scene, [dying, steady])
            let client = try redis.client()
            // More fields than are read, and more bytes than any answer may have.
            for key in ["sluice:health:main", "sluice:nodes:info"] {
                for start in stride(from: 0, to: 40_000, by: 1_000) {
                    _ = try client.ask(
                        ["HSET", key] + (start..<start + 1_000).flatMap { ["http://x:1|n\($0)", "{}"] })
                }
            }
            _ = try client.ask(["HSET", "sluice:probes:main", "x", String(repeating: "x", count: 17 << 20)])
            try client("DEL", "sluice:breaker:main")
            try client("SET", "sluice:breaker:main", "no hash")
            for node in nodes {
                for key in ["sluice:health:main", "sluice:nodes:info", "sluice:probes:main"] {
                    try eventually("it leaves \(key) alone") { node.log.contains("\(key) holds more than any cluster") }
                }
                try eventually("it has Redis") { try node.isReached() }
            }
            try works(scene, nodes, &dying)
            for node in nodes {
                try eventually("the others are seen") {
                    try node.admin("/api/nodes").text.components(of: "\"id\":") == 3
                }
                #expect(node.log.contains("sluice:breaker:main cannot be read: WRONGTYPE"))
            }
        }
    }

    @Test("a vote in another's name lasts until its owner reads it, and mutes nobody")
    func inAnothersName() throws {
        try Scene.play { scene in
            var dying = try scene.backend(named: "dying")
            let steady = try scene.backend(named: "steady")
            let (nodes, redis) = try cluster(scene, [dying, steady])
            let client = try redis.client()
            let info = try client("HGET", "sluice:nodes:info", "a")
            let boot = info.split(separator: "\"boot\":\"")[1].prefix(16)
            for (boot, sequence) in [(boot, "18446744073709551615"), ("ffffffffffffffff", "1")] {
                let verdict =
                    "{\"backend\":\"\(steady.url)\",\"boot\":\"\(boot)\",\"evidence\":\"forged\",\"kind\":\"probe\",\"node\":\"a\","
                    + "\"sequence\":\(sequence),\"service\":\"main\",\"since\":1,\"state\":\"down\"}"
                try client("HSET", "sluice:health:main", "\(steady.url)|a", verdict)
                try client("PUBLISH", "sluice:health", verdict)
            }
            // One vote is no quorum.
            for node in nodes { #expect(try node.uses(steady.url)) }
            try eventually("its owner has taken it back") {
                try !client("HGET", "sluice:health:main", "\(steady.url)|a").contains("forged")
            }
            for node in nodes {
                try eventually("nobody speaks against it") {
                    try !node.row(of: steady.url).contains("\"down\"")
                }
            }
            try works(scene, nodes, &dying)
        }
    }
}
