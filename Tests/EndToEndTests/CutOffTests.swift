import Glibc
import Primitives
import TestSupport
import Testing

/// Three nodes, of which the last has a login of its own for Redis, and loses it.
@Suite("One node of three cut off from Redis", .serialized)
struct CutOffTests {
    private static let limit = 30

    private final class Stage {
        let redis: RedisTestClient
        let nodes: [SluiceNode]
        private let directory: TemporaryDirectory
        private let logs: [String]

        init(_ scene: Scene) throws {
            let server = try scene.redis()
            redis = try server.client()
            #expect(try redis("ACL", "SETUSER", "third", "on", ">secret", "~*", "&*", "+@all") == "+OK")
            let directory = try TemporaryDirectory()
            self.directory = directory
            let backend = try scene.backend()
            let ids = ["n0", "n1", "n2"]
            logs = ids.map { "\(directory.path)/\($0).log" }
            nodes = try zip(ids, logs).map { id, log in
                var file = File([backend])
                let login = id == "n2" ? "third:secret@" : ""
                file.gateway = "heartbeat: 500ms"
                file.rateLimit =
                    "requestsPerSecond: \(limit), redisURL: \"redis://\(login)127.0.0.1:\(server.port)\", "
                    + "decisionLog: \"\(log)\", timeout: 500ms"
                return try scene.node(file, ["--node-id", id])
            }
            for node in nodes { try eventually("it sees all") { try Self.alive(node) == 3 } }
        }

        static func alive(_ node: SluiceNode) throws -> Int {
            try node.admin("/api/nodes").text.components(of: "\"state\":\"alive\"")
        }

        func cut() throws {
            #expect(try redis("ACL", "SETUSER", "third", "off") == "+OK")
            _ = try redis("CLIENT", "KILL", "USER", "third")
            for node in nodes.dropLast() {
                try eventually("the others know that it is cut off") {
                    try node.admin("/api/nodes").text.contains("\"state\":\"cutOff\"")
                }
                try eventually("they say so") {
                    node.log.contains("node n2 at \(self.nodes[2].address) runs but is cut off")
                }
                try eventually("they count it") {
                    try node.admin("/metrics").text.contains("\nsluice_cluster_cut_off_nodes 1\n")
                }
            }
        }

        /// Lets time pass by Redis's clock.
        func pass(_ span: TimeSpan) throws -> (from: Int64, to: Int64) {
            let from = try redis.time()
            try eventually("time passes") { try self.redis.time() - from >= span }
            return (from.microseconds, try redis.time().microseconds)
        }

        func written() throws -> WindowChecker { try WindowChecker(logs) }
    }

    @Test("its share is kept free until it is back: no window holds more than the limit and one a node")
    func share() throws {
        try Scene.play { scene in
            let stage = try Stage(scene)
            let traffic = Traffic(stage.nodes)
            defer { traffic.stop() }
            try eventually("traffic flows") { traffic.asked > 100 }
            try stage.cut()
            let before = traffic.asked
            let lost = try stage.pass(.seconds(5))
            let asked = traffic.asked - before
            #expect(try stage.redis("ACL", "SETUSER", "third", "on") == "+OK")
            for node in stage.nodes { try eventually("it is back") { try Stage.alive(node) == 3 } }
            for node in stage.nodes.dropLast() {
                #expect(node.log.contains("node n2 joined"))
                try eventually("they count none") {
                    try node.admin("/metrics").text.contains("\nsluice_cluster_cut_off_nodes 0\n")
                }
            }
            let whole = try stage.pass(.seconds(3))
            traffic.stop()
            #expect(Set(traffic.failed.keys).isSubset(of: [429]))
            let last = whole.to
            try eventually("the logs are written") { try stage.written().total { $0 > last - 1_000_000 } > 0 }
            let checker = try stage.written()
            // What is decided without Redis has the time that the node takes its clock to read.
            let length: Int64 = 990_000
            let inside = checker.fullest(length, sources: ["window", "share"]) {
                lost.from + length <= $0 && $0 <= lost.to
            }
            #expect(inside <= Self.limit + 3)
            let used = checker.total { lost.from + 1_000_000 <= $0 && $0 < lost.to }
            let seconds = Double(lost.to - lost.from) / 1e6
            // A machine that is too busy has not asked for so much.
            #expect(Double(used) >= 0.9 * Double(Self.limit) * (seconds - 1) || Double(asked) < 150 * seconds)
            let after = checker.fullest { whole.from + 2_000_000 <= $0 }
            #expect(after <= Self.limit)
        }
    }

    @Test("its share is free again at once when it is killed")
    func killed() throws {
        try Scene.play { scene in
            let stage = try Stage(scene)
            try stage.cut()
            stage.nodes[2].kill()
            for node in stage.nodes.dropLast() {
                try eventually("it is gone") { try !node.admin("/api/nodes").text.contains("cutOff") }
                #expect(node.log.contains("node n2 is gone"))
            }
            let traffic = Traffic(Array(stage.nodes.dropLast()))
            defer { traffic.stop() }
            let times = try stage.pass(.seconds(3))
            traffic.stop()
            try eventually("the logs are written") { try stage.written().total { $0 > times.to - 1_000_000 } > 0 }
            let most = try stage.written().fullest()
            // More than what its share would leave them.
            #expect((Self.limit * 2 / 3 + 1...Self.limit).contains(most))
        }
    }
}
