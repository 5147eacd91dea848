import Primitives
import TestSupport
import Testing

/// Nodes that have an address and a way to Redis and to the backends of their own, which break one by one. How fast they
/// notice is measured by `scripts/bench-health`.
@Suite("Nodes in network namespaces", .serialized)
struct NamespaceTests {
    /// Hosts of the hub; the first is where the test itself asks from.
    private static let (redisHost, dyingHost, steadyHost) = (2, 3, 4)

    private struct Stage {
        let network: Namespaces
        let redis: RedisServer
        let dying: RecordingBackend
        let steady: RecordingBackend
        let nodes: [SluiceNode]
    }

    private func play(_ count: Int, _ body: (Scene, Stage) throws -> Void) throws {
        let network = try Namespaces(count)
        defer { network.remove() }
        try Scene.play { scene in
            let redis = try scene.redis(
                ["--bind", "\(network.hub(Self.redisHost))", "127.0.0.1", "--protected-mode", "no"])
            let dying = try scene.backend(named: "dying", on: network.hub(Self.dyingHost))
            let steady = try scene.backend(named: "steady", on: network.hub(Self.steadyHost))
            let nodes = try (0..<count).map { index in
                var file = File([
                    File.Service(
                        urls: [dying.url, steady.url],
                        more: "timeouts: {connect: 3s, response: 3s}, circuitBreaker: {failures: 1000}",
                        health: "interval: 1s, warningInterval: 200ms, downInterval: 100ms, timeout: 1s, "
                            + "cooldown: 500ms, cooldownMax: 1s")
                ])
                file.listen = "\(network.address(index)):0"
                file.admin = "\(network.address(index)):0"
                file.gateway = "heartbeat: 200ms, adminToken: \(Self.token)"
                file.rateLimit = "redisURL: \"redis://\(network.hub(Self.redisHost)):\(redis.port)\""
                let node = try scene.node(file, ["--node-id", "n\(index)"], in: network.program(index))
                node.token = Self.token
                return node
            }
            for node in nodes {
                try eventually("it sees all") { try node.admin("/api/nodes").text.components(of: "\"id\":") == count }
            }
            try body(scene, Stage(network: network, redis: redis, dying: dying, steady: steady, nodes: nodes))
        }
    }

    /// The admin listeners are not on loopback.
    private static let token = "a-token-of-the-tests"
    private static let allowed = Comment(rawValue: Namespaces.refusal ?? "")

    @Test(
        "a backend that refuses connections is left by all nodes, and no request fails",
        .enabled(
            if: Namespaces.refusal == nil, allowed), arguments: [3, 5])
    func refused(count: Int) throws {
        try play(count) { scene, stage in
            let traffic = Traffic(stage.nodes)
            defer { traffic.stop() }
            try eventually("traffic flows") { traffic.asked > 100 }
            stage.dying.stop()
            for node in stage.nodes { try eventually("it is down") { try node.calls(stage.dying.url, "down") } }
            let before = traffic.asked
            try eventually("traffic flows") { traffic.asked > before + 100 }
            #expect(traffic.failed.isEmpty)
            let reborn = try scene.backend(
                named: "reborn", on: stage.network.hub(Self.dyingHost), port: stage.dying.address.port)
            for node in stage.nodes {
                try eventually("it is used again") { try node.uses(reborn.url) && node.ask().text == "reborn" }
            }
            #expect(traffic.failed.isEmpty)
        }
    }

    @Test(
        "whose way to a backend is broken avoids it alone; whose way to all is broken has no vote",
        .enabled(if: Namespaces.refusal == nil, allowed))
    func path() throws {
        try play(3) { scene, stage in
            let (lame, others) = (stage.nodes[0], stage.nodes.dropFirst())
            let healthy = Traffic(Array(others))
            defer { healthy.stop() }
            try stage.network.cut(0, from: Self.dyingHost)
            try eventually("it avoids the backend") {
                _ = try lame.ask()
                return try lame.row(of: stage.dying.url).contains("avoided by this node alone")
            }
            for _ in 0..<10 { #expect(try lame.ask().text == "steady") }
            for node in others {
                try eventually("they know of it") {
                    try node.row(of: stage.dying.url).contains("1 of 3 nodes judge it down, too few for the quorum")
                }
                try eventually("they use it") { try node.ask().text == "dying" }
            }
            try stage.network.heal(0, to: Self.dyingHost)
            try eventually("it is used by all again") {
                _ = try lame.ask()
                return try stage.nodes.allSatisfy { try $0.uses(stage.dying.url) }
            }

            for host in [Self.dyingHost, Self.steadyHost] { try stage.network.cut(0, from: host) }
            try eventually("it finds none") {
                _ = try lame.ask()
                return try !lame.uses(stage.dying.url) && !lame.uses(stage.steady.url)
            }
            for node in others {
                try eventually("it is known to be cut off") { node.log.contains("node n0 judges every backend down") }
                #expect(try node.uses(stage.dying.url) && node.uses(stage.steady.url))
            }
            for host in [Self.dyingHost, Self.steadyHost] { try stage.network.heal(0, to: host) }
            try eventually("its votes count again") {
                _ = try lame.ask()
                return others.allSatisfy { $0.log.contains("the votes of node n0 count again") }
            }
            #expect(healthy.failed.isEmpty)
        }
    }

    @Test(
        "whose way to Redis is broken goes on alone, and agrees with the others when it is whole",
        .enabled(if: Namespaces.refusal == nil, allowed))
    func redis() throws {
        try play(3) { scene, stage in
            let traffic = Traffic(stage.nodes)
            defer { traffic.stop() }
            try stage.network.cut(0, from: Self.redisHost)
            try eventually("it has lost Redis") { try !stage.nodes[0].isReached() }
            for node in stage.nodes.dropFirst() {
                // Whether they see that it runs depends on whether this machine's bridge leads from one to the other.
                try eventually("for the others it is gone, or cut off") {
                    try node.admin("/api/nodes").text.components(of: "\"state\":\"alive\"") == 2
                }
            }
            stage.dying.stop()
            for node in stage.nodes { try eventually("it is left") { try !node.uses(stage.dying.url) } }
            try stage.network.heal(0, to: Self.redisHost)
            try eventually("all are one again") {
                try stage.nodes.allSatisfy { node in
                    try node.calls(stage.dying.url, "down")
                        && node.row(of: stage.dying.url).contains(
                            "\"votes\":{\"n0\":\"down\",\"n1\":\"down\",\"n2\":\"down\"}")
                }
            }
            #expect(traffic.failed.isEmpty)
        }
    }
}
