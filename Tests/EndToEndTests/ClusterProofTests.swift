import Glibc
import LinuxIO
import Primitives
import TestSupport
import Testing

/// Real nodes under traffic while their backends die, hang and lose their Redis. How fast they notice is measured by
/// `scripts/bench-health`; here counts what clients see.
@Suite("A cluster under traffic")
struct ClusterProofTests {
    private static let health =
        "interval: 1s, warningInterval: 200ms, downInterval: 100ms, timeout: 2s, cooldown: 1s, cooldownMax: 2s"

    private func cluster(
        _ scene: Scene, _ count: Int, _ urls: [String], _ redis: RedisServer,
        _ more: String = "circuitBreaker: {failures: 1000}"
    ) throws -> [SluiceNode] {
        var file = File([File.Service(urls: urls, more: more, health: Self.health)])
        file.gateway = "heartbeat: 200ms"
        file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
        let nodes = try (0..<count).map { try scene.node(file, ["--node-id", "n\($0)"]) }
        try LimitTests.reached(nodes)
        return nodes
    }

    @Test(
        "a backend is killed and no request fails on any node, with Redis restarted in the middle", arguments: [3, 5])
    func killed(count: Int) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let dying = try scene.backend(named: "dying")
            let steady = try scene.backend(named: "steady")
            let nodes = try cluster(scene, count, [dying.url, steady.url], redis)
            let traffic = Traffic(nodes)
            defer { traffic.stop() }
            try eventually("traffic flows") { traffic.asked > 100 }
            dying.stop()
            for node in nodes { try eventually("it is down") { try node.calls(dying.url, "down") } }
            #expect(traffic.failed.isEmpty)

            redis.kill()
            let reborn = try scene.backend(named: "reborn", port: dying.address.port)
            let before = traffic.asked
            try eventually("traffic flows without Redis") { traffic.asked > before + 200 }
            try redis.start()
            for node in nodes { try eventually("it is up again") { try !node.calls(dying.url, "down") } }
            for node in nodes { try eventually("it is used") { try node.ask().text == "reborn" } }
            #expect(traffic.failed.isEmpty)
            _ = reborn
        }
    }

    @Test("a backend that hangs is out on every node, and no request fails from then on; it comes back when it wakes")
    func hanging() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let steady = try scene.backend(named: "steady")
            let held = try scene.freePort()
            let process = try ChildProcess(
                try SluiceNode.binary(), ["backend", "--address", "127.0.0.1", "--port", "\(held.port)"])
            defer { process.kill() }
            let url = held.url
            let nodes = try cluster(
                scene, 3, [url, steady.url], redis,
                "timeouts: {response: 300ms, connect: 300ms}, circuitBreaker: {failures: 1000}")
            for node in nodes {
                try eventually("it is used") { try node.ask().text != "steady" }
            }
            let traffic = Traffic(nodes)
            defer { traffic.stop() }
            try eventually("traffic flows") { traffic.asked > 100 }
            process.signal(SIGSTOP)
            for node in nodes { try eventually("it is down") { try node.calls(url, "down") } }
            // Those that were under way when the last node stopped may still run into their timeout.
            try eventually("nothing is under way there") {
                try nodes.allSatisfy { node in
                    try node.row(of: url).contains("\"inFlight\":0")
                }
            }
            traffic.forget()
            let before = traffic.asked
            try eventually("traffic flows") { traffic.asked > before + 500 }
            #expect(traffic.failed.isEmpty)
            process.signal(SIGCONT)
            for node in nodes {
                try eventually("it is used again") { try node.ask().text != "steady" }
            }
        }
    }
}
