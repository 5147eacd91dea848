import Primitives
import TestSupport
import Testing

@Suite("Several policies on a Redis Cluster", .serialized)
struct ClusterPolicyTests {
    private static func file(
        _ backend: RecordingBackend, _ cluster: RedisCluster, _ policies: String, _ more: String = "timeout: 5s"
    ) -> File {
        var file = File([backend])
        file.rateLimit = "policies: [\(policies)], \(more), redisURL: \"\(cluster.url)\""
        file.gateway = "trustedProxies: [\"127.0.0.1/32\"]"
        return file
    }

    private static func reached(_ nodes: [SluiceNode]) throws {
        for node in nodes {
            try eventually("the node has reached Redis") {
                try node.admin("/readyz").text.contains("\"cluster\":\"reached\"")
            }
        }
    }

    private static func burst(_ count: Int, to node: SluiceNode, as client: String) throws -> [WireMessage] {
        let wire = try node.connect()
        let request = "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: \(client)\r\n\r\n"
        try wire.send(String(repeating: request, count: count))
        return try (0..<count).map { _ in try wire.readResponse() }
    }

    private static func admitted(_ answers: [WireMessage]) -> Int { answers.count { $0.status == 200 } }

    private static func slot(_ cluster: RedisCluster, _ key: String) throws -> Int {
        try #require(Int(try cluster.servers[0].client()("CLUSTER", "KEYSLOT", key)))
    }

    private static func owner(_ slot: Int) -> Int { slot <= 5_460 ? 0 : slot <= 10_922 ? 1 : 2 }

    /// Entries of a window, wherever it is.
    private static func count(_ cluster: RedisCluster, _ key: String) throws -> Int {
        for server in cluster.servers {
            if let count = Int(try server.client()("ZCARD", key)) { return count }
        }
        return -1
    }

    private static let total = "rate_limit:{total:20/1h:global}"
    private static let policies =
        "{name: client, limit: 50, window: 1h}, {name: total, limit: 20, window: 1h, key: global}"

    @Test("windows on different servers decide together, over two nodes; what one of them refused is given back by all")
    func together() throws {
        try Scene.play { scene in
            let cluster = try RedisCluster()
            defer { cluster.stop() }
            let backend = try scene.backend()
            let file = Self.file(backend, cluster, Self.policies)
            let nodes = [try scene.node(file, ["--node-id", "a"]), try scene.node(file, ["--node-id", "b"])]
            try Self.reached(nodes)
            var admitted: [String: Int] = [:]
            var refusal: WireMessage?
            for round in 0..<24 {
                let client = "192.0.2.\(1 + round % 6)"
                let answers = try Self.burst(10, to: nodes[round % 2], as: client)
                admitted[client, default: 0] += Self.admitted(answers)
                refusal = answers.last { $0.status == 429 } ?? refusal
            }
            #expect(admitted.values.reduce(0, +) == 20)
            #expect(backend.requests.count == 20)
            #expect(try Self.count(cluster, Self.total) == 20)
            var owners: Set<Int> = [Self.owner(try Self.slot(cluster, Self.total))]
            for (client, count) in admitted {
                let key = "rate_limit:{client:50/1h:ip:\(client)}"
                owners.insert(Self.owner(try Self.slot(cluster, key)))
                try eventually("\(client) is charged \(count) times and no more") {
                    try Self.count(cluster, key) == count
                }
            }
            #expect(owners.count > 1)
            #expect(refusal?.text.contains("\"violated-policies\":[\"total\"]") == true)
            for node in nodes { #expect(!node.log.contains("Redis lost"), "\(node.log)") }
        }
    }

    @Test("a slot that moves takes its policy along: midway and after, all decide together")
    func moving() throws {
        try Scene.play { scene in
            let cluster = try RedisCluster()
            defer { cluster.stop() }
            let backend = try scene.backend()
            let node = try scene.node(Self.file(backend, cluster, Self.policies))
            try Self.reached([node])
            let slot = try Self.slot(cluster, Self.total)
            let source = Self.owner(slot)
            var admitted: [String: Int] = [:]
            func ask(_ count: Int) throws {
                for index in 1...5 {
                    admitted["192.0.2.\(index)", default: 0] += Self.admitted(
                        try Self.burst(count, to: node, as: "192.0.2.\(index)"))
                }
            }
            try ask(1)
            #expect(admitted.values.reduce(0, +) == 5)
            try cluster.move(slot: slot, from: source, to: (source + 1) % 3) { _ in try ask(1) }
            #expect(admitted.values.reduce(0, +) == 15)
            try ask(4)
            #expect(admitted.values.reduce(0, +) == 20)
            // The clients' windows move too, full of what is to be given back.
            for index in 1...5 {
                let key = "rate_limit:{client:50/1h:ip:192.0.2.\(index)}"
                let slot = try Self.slot(cluster, key)
                let source = Self.owner(slot)
                try cluster.move(slot: slot, from: source, to: (source + 2) % 3) { _ in try ask(1) }
            }
            #expect(admitted.values.reduce(0, +) == 20)
            #expect(backend.requests.count == 20)
            #expect(try Self.count(cluster, Self.total) == 20)
            for (client, count) in admitted {
                try eventually("\(client) is charged \(count) times and no more") {
                    try Self.count(cluster, "rate_limit:{client:50/1h:ip:\(client)}") == count
                }
            }
            #expect(!node.log.contains("Redis lost"), "\(node.log)")
        }
    }

    @Test("a server that is gone takes only its own policies out", arguments: ["open", "closed"])
    func oneServerGone(rule: String) throws {
        try Scene.play { scene in
            let cluster = try RedisCluster()
            defer { cluster.stop() }
            let backend = try scene.backend()
            let node = try scene.node(
                Self.file(backend, cluster, Self.policies, "timeout: 200ms, onRedisLoss: \(rule)"))
            try Self.reached([node])
            let gone = Self.owner(try Self.slot(cluster, Self.total))
            let client = try #require(
                try (1...50).map { "192.0.2.\($0)" }.first { client in
                    try Self.owner(Self.slot(cluster, "rate_limit:{client:50/1h:ip:\(client)}")) != gone
                })
            let key = "rate_limit:{client:50/1h:ip:\(client)}"
            try eventually("both servers decide") { Self.admitted(try Self.burst(1, to: node, as: client)) == 1 }
            cluster.servers[gone].kill()
            try eventually("the loss rule decides for the server that is gone") {
                _ = try Self.burst(1, to: node, as: client)
                return node.log.contains("Redis lost: the loss rule decides limits")
            }
            let before = backend.requests.count
            // The client's own window still counts what passes, and nothing else.
            let answers = try Self.burst(60, to: node, as: client)
            let admitted = Self.admitted(answers)
            #expect(rule == "closed" ? admitted == 0 : before + admitted == 50)
            let refusal = try #require(answers.last { $0.status == 429 })
            #expect(refusal.text.contains(rule == "closed" ? "[\"total\"]" : "[\"client\"]"))
            let server = cluster.servers[Self.owner(try Self.slot(cluster, key))]
            try eventually("the client is charged for what passed and no more") {
                try server.client()("ZCARD", key) == "\(before + admitted)"
            }
        }
    }
}
