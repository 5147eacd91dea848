import Glibc
import Primitives
import TestSupport
import Testing

@Suite("The promise, checked from outside", .serialized)
struct WindowInvariantTests {
    /// Nodes under load that write down what they admit.
    private final class Load {
        let scene: Scene
        let directory: TemporaryDirectory
        let backend: RecordingBackend
        let rate: Int
        let url: String
        let more: String
        private(set) var nodes: [SluiceNode] = []
        private(set) var logs: [String] = []
        private(set) var answered = 0
        private(set) var admitted = 0

        init(_ scene: Scene, rate: Int, url: String, _ more: String) throws {
            self.scene = scene
            self.rate = rate
            self.url = url
            self.more = more
            directory = try TemporaryDirectory()
            backend = try scene.backend()
        }

        func addNode(_ id: String) throws {
            let log = "\(directory.path)/\(id).log"
            var file = File([backend])
            file.rateLimit =
                "requestsPerSecond: \(rate), redisURL: \"\(url)\", decisionLog: \"\(log)\", \(more)"
            file.gateway = "trustedProxies: [\"127.0.0.1/32\"]"
            nodes.append(try scene.node(file, ["--node-id", id]))
            logs.append(log)
        }

        func removeNode() { nodes.removeLast().kill() }

        func reached() throws {
            for node in nodes {
                try eventually("the nodes have reached Redis") {
                    try node.admin("/readyz").text.contains("\"cluster\":\"reached\"")
                }
            }
        }

        /// A burst at each node by a few clients, so many requests each.
        func push(_ count: Int = 20) throws {
            for node in nodes {
                let wire = try node.connect()
                var text = ""
                for i in 0..<count {
                    text += "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 203.0.113.\(i % 4)\r\n\r\n"
                }
                try wire.send(text)
                for _ in 0..<count {
                    let status = try wire.readResponse().status
                    #expect(status == 200 || status == 429)
                    answered += 1
                    if status == 200 { admitted += 1 }
                }
            }
        }

        func push(for seconds: Int) throws {
            let end = wallSeconds() + seconds
            while wallSeconds() <= end { try push() }
        }

        func check() throws -> WindowChecker { try WindowChecker(logs) }

        /// Every node's log has the lines of all that it has answered, once its thread has written them.
        func settle() throws {
            try eventually("the logs are written") { try self.check().total == self.admitted }
        }
    }

    @Test("Redis hung and the nodes killed and added: no window holds more than its limit")
    func hangs() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let load = try Load(
                scene, rate: 40, url: "redis://127.0.0.1:\(redis.port)", "timeout: 100ms, onRedisLoss: closed")
            for id in ["a", "b", "c", "d"] { try load.addNode(id) }
            try load.reached()
            try load.push(for: 1)
            for id in ["e", "f"] {
                redis.pause()
                for _ in 0..<5 { try load.push() }
                redis.resume()
                try load.settle()
                load.removeNode()
                try load.addNode(id)
                try load.reached()
                try load.push(for: 1)
            }
            try load.settle()
            let checker = try load.check()
            #expect(checker.fullest() <= load.rate)
            #expect(checker.fullest() > load.rate / 2)
            #expect(load.backend.requests.count == load.admitted)
            print("hung and killed: \(load.answered) answered, \(load.admitted) admitted, at most \(checker.fullest())")
        }
    }

    @Test("Redis killed: the window that straddles it holds the limit and what was lost, all others the limit")
    func killed() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let load = try Load(
                scene, rate: 40, url: "redis://127.0.0.1:\(redis.port)", "timeout: 100ms, onRedisLoss: closed")
            for id in ["a", "b", "c"] { try load.addNode(id) }
            try load.reached()
            try load.push(for: 1)
            let client = try redis.client()
            let killedAt = try client.time().microseconds
            redis.kill()
            try load.push()
            try redis.start()
            try load.reached()
            try load.push(for: 2)
            try load.settle()
            let checker = try load.check()
            let straddling = checker.fullest { $0 > killedAt && $0 < killedAt + 3_000_000 }
            #expect(straddling <= 2 * load.rate)
            #expect(checker.fullest { $0 <= killedAt || $0 >= killedAt + 3_000_000 } <= load.rate)
            print(
                "killed: \(load.answered) answered, \(load.admitted) admitted, at most \(straddling) across the restart"
            )
        }
    }

    @Test("Redis gone, each node with its share: no window inside the loss holds more than the limit and one a node")
    func share() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let load = try Load(
                scene, rate: 40, url: "redis://127.0.0.1:\(redis.port)", "timeout: 1s, onRedisLoss: share")
            for id in ["a", "b", "c"] { try load.addNode(id) }
            try load.reached()
            for node in load.nodes {
                try eventually("it knows all") { try node.admin("/api/nodes").text.components(of: "\"id\":") == 3 }
            }
            try load.push(for: 1)
            let killedAt = try redis.client().time().microseconds
            redis.kill()
            try load.push(for: 2)
            try load.settle()
            let checker = try load.check()
            // The times are what the nodes take Redis's clock to read, which is not the same to the millisecond.
            #expect(checker.fullest(990_000, sources: ["share"]) <= load.rate + load.nodes.count)
            #expect(checker.fullest { $0 <= killedAt } <= load.rate)
            #expect(checker.total { $0 > killedAt } > 0)
            let straddling = checker.fullest(990_000, sources: ["window", "share"])
            #expect(straddling <= load.rate + load.nodes.count * 14)
            #expect(load.backend.requests.count == load.admitted)
            print("shared: \(load.answered) answered, \(load.admitted) admitted, at most \(straddling) at the loss")
        }
    }

    @Test("slots that move under load: no window holds more than its limit")
    func resharding() throws {
        try Scene.play { scene in
            let cluster = try RedisCluster()
            defer { cluster.stop() }
            let load = try Load(scene, rate: 40, url: cluster.url, "timeout: 1s, onRedisLoss: closed")
            for id in ["a", "b", "c", "d"] { try load.addNode(id) }
            try load.reached()
            let asked = try cluster.servers[0].client()
            let slots = try (0..<4).map { client in
                let key = "rate_limit:{default:40/1s:ip:203.0.113.\(client)}"
                return try #require(Int(try asked("CLUSTER", "KEYSLOT", key)))
            }
            var at = slots.map { $0 <= 5_460 ? 0 : $0 <= 10_922 ? 1 : 2 }
            for round in 0..<24 {
                let index = round % slots.count
                let target = (at[index] + 1) % 3
                try cluster.move(slot: slots[index], from: at[index], to: target) { _ in try load.push() }
                at[index] = target
                try load.push()
            }
            try load.settle()
            let checker = try load.check()
            #expect(checker.fullest() <= load.rate)
            #expect(load.backend.requests.count == load.admitted)
            print("resharded: \(load.answered) answered, \(load.admitted) admitted, at most \(checker.fullest())")
        }
    }

    @Test(
        "a failover by Sentinel: the window that straddles it holds the limit and what was lost, all others the limit")
    func failover() throws {
        try Scene.play { scene in
            let group = try SentinelGroup()
            defer { group.stop() }
            let load = try Load(scene, rate: 40, url: group.url, "timeout: 100ms, onRedisLoss: closed")
            for id in ["a", "b", "c"] { try load.addNode(id) }
            try load.reached()
            try load.push(for: 1)
            let failedAt = try group.servers[0].client().time().microseconds
            group.servers[0].kill()
            try eventually("the sentinels lead to the other server") {
                try load.push(8)
                return try group.primaryPort() == group.servers[1].port
            }
            try load.reached()
            try load.push(for: 2)
            try load.settle()
            let over = try group.servers[1].client().time().microseconds
            let checker = try load.check()
            #expect(checker.fullest { $0 > failedAt && $0 < over } <= 2 * load.rate)
            #expect(checker.fullest { $0 <= failedAt } <= load.rate)
            #expect(checker.total { $0 > failedAt } > 0)
            print("failed over: \(load.answered) answered, \(load.admitted) admitted, at most \(checker.fullest())")
        }
    }
}
