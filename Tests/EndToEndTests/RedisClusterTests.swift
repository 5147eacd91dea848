import Glibc
import LinuxIO
import Primitives
import TestSupport
import Testing

@Suite("Redis as a cluster", .serialized)
struct RedisClusterTests {
    private static func file(_ backend: RecordingBackend, _ url: String, rate: Int, _ timeout: String = "1s") -> File {
        var file = File([backend])
        file.rateLimit = "requestsPerSecond: \(rate), timeout: \(timeout), redisURL: \"\(url)\""
        file.gateway = "trustedProxies: [\"127.0.0.1/32\"]"
        return file
    }

    private static func reached(_ node: SluiceNode) throws {
        try eventually("the node has reached Redis") {
            try node.admin("/readyz").text.contains("\"cluster\":\"reached\"")
        }
    }

    private static func burst(_ count: Int, to node: SluiceNode, as client: String) throws -> Int {
        let wire = try node.connect()
        let request = "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: \(client)\r\n\r\n"
        try wire.send(String(repeating: request, count: count))
        return try (0..<count).map { _ in try wire.readResponse() }.count { $0.status == 200 }
    }

    private static func key(_ client: String, rate: Int) -> String { "rate_limit:{default:\(rate)/1s:ip:\(client)}" }

    private static func slot(_ cluster: RedisCluster, _ key: String) throws -> Int {
        try #require(Int(try cluster.servers[0].client()("CLUSTER", "KEYSLOT", key)))
    }

    private static func owner(_ slot: Int) -> Int { slot <= 5_460 ? 0 : slot <= 10_922 ? 1 : 2 }

    @Test("windows are spread over the servers and hold over two nodes; the nodes see each other")
    func spread() throws {
        try Scene.play { scene in
            let cluster = try RedisCluster()
            defer { cluster.stop() }
            let backend = try scene.backend()
            let file = Self.file(backend, cluster.url, rate: 5)
            let nodes = [try scene.node(file, ["--node-id", "a"]), try scene.node(file, ["--node-id", "b"])]
            for node in nodes { try Self.reached(node) }
            for node in nodes {
                try eventually("both are members") {
                    let text = try node.admin("/api/nodes").text
                    return text.contains("\"a\"") && text.contains("\"b\"")
                }
            }
            var owners: Set<Int> = []
            for client in 1...24 {
                let name = "203.0.113.\(client)"
                let admitted = try Self.burst(6, to: nodes[0], as: name) + Self.burst(6, to: nodes[1], as: name)
                #expect(admitted == 5, "\(name)")
                let key = Self.key(name, rate: 5)
                let owner = Self.owner(try Self.slot(cluster, key))
                owners.insert(owner)
                #expect(try cluster.servers[owner].client()("ZCARD", key) == "5")
            }
            #expect(owners == [0, 1, 2])
            for node in nodes { #expect(!node.log.contains("Redis lost"), "\(node.log)") }
        }
    }

    @Test("a slot that moves takes its window along, midway and after, and nothing is counted twice or forgotten")
    func resharding() throws {
        try Scene.play { scene in
            let cluster = try RedisCluster()
            defer { cluster.stop() }
            let node = try scene.node(Self.file(try scene.backend(), cluster.url, rate: 40))
            try Self.reached(node)
            // A client whose key is there when its slot moves, and one of the same slot whose key is not.
            let here = "203.0.113.7"
            let key = Self.key(here, rate: 40)
            let slot = try Self.slot(cluster, key)
            let source = Self.owner(slot)
            let target = (source + 1) % 3
            func admitted(_ count: Int) throws -> Int { try Self.burst(count, to: node, as: here) }
            #expect(try admitted(10) == 10)
            let before = wallSeconds()
            var total = 10
            try cluster.move(slot: slot, from: source, to: target) { keysMoved in
                total += try admitted(10)
                let holder = keysMoved ? target : source
                let client = try cluster.servers[holder].client()
                try client("ASKING")
                let count = try #require(Int(try client("ZCARD", key)))
                #expect(count <= total)
                if wallSeconds() == before { #expect(count == total) }
            }
            total += try admitted(20)
            // Where it all happened within a second, the window is full; in no case was more admitted.
            if wallSeconds() == before { #expect(total == 40) }
            #expect(try cluster.servers[target].client()("EXISTS", key) == "1")
            #expect(try cluster.servers[source].client()("ZCARD", key).hasPrefix("-MOVED"))
            #expect(!node.log.contains("Redis lost"), "\(node.log)")
        }
    }

    @Test("what the nodes share moves to another server, and they go on there: nothing is lost, and no remedy is given")
    func sharedSlot() throws {
        try Scene.play { scene in
            let cluster = try RedisCluster()
            defer { cluster.stop() }
            let file = Self.file(try scene.backend(), cluster.url, rate: 40)
            let nodes = try ["a", "b"].map { try scene.node(file, ["--node-id", $0]) }
            for node in nodes { try Self.reached(node) }
            let slot = try Self.slot(cluster, "{sluice}:nodes")
            let owner = Self.owner(slot)
            for (move, target) in [(owner + 1) % 3, (owner + 2) % 3].enumerated() {
                let source = move == 0 ? owner : (owner + 1) % 3
                try cluster.move(slot: slot, from: source, to: target)
                let client = try cluster.servers[target].client()
                for node in nodes {
                    try eventually("it has followed") {
                        node.log.components(of: "on another server of the Redis Cluster now") == move + 1
                    }
                }
                let before = try client("ZRANGE", "{sluice}:nodes", "0", "-1", "WITHSCORES")
                try eventually("their heartbeats arrive there") {
                    let now = try client("ZRANGE", "{sluice}:nodes", "0", "-1", "WITHSCORES")
                    return now != before && now.contains("'a'") && now.contains("'b'")
                }
            }
            for node in nodes {
                #expect(node.log.components(of: "joined the cluster") == 1, "\(node.log)")
                for words in ["out of reach", "MOVED", "redis+cluster:// in"] {
                    #expect(!node.log.contains(words), "\(words): \(node.log)")
                }
                #expect(try node.admin("/readyz").text.contains("\"warnings\":[]"))
                #expect(try node.admin("/api/redis").text.contains("\"moved\":0"))
                #expect(try node.admin("/api/nodes").text.components(of: "\"alive\"") == 2)
            }
        }
    }

    @Test("whoever is the first to be led to a server waits for the connection, and the window there decides")
    func firstRedirection() throws {
        try Scene.play { scene in
            let cluster = try RedisCluster(spares: 2)
            defer { cluster.stop() }
            var file = Self.file(try scene.backend(), cluster.url, rate: 100)
            file.rateLimit += ", onRedisLoss: closed"
            let node = try scene.node(file)
            try Self.reached(node)
            // By ASK to the one, and by MOVED to the other.
            for (client, target) in [("203.0.113.7", 3), ("203.0.113.8", 4)] {
                #expect(try Self.burst(5, to: node, as: client) == 5)
                let slot = try Self.slot(cluster, Self.key(client, rate: 100))
                try cluster.move(slot: slot, from: Self.owner(slot), to: target) { keysMoved in
                    guard target == 3, keysMoved else { return }
                    let admitted = try Self.burst(5, to: node, as: client)
                    #expect(admitted == 5)
                }
                #expect(try Self.burst(5, to: node, as: client) == 5)
            }
            #expect(!node.log.contains("Redis lost"), "\(node.log)")
        }
    }

    @Test("whoever is led to a server that hangs is answered without it, and so is whoever comes then")
    func redirectionToSilence() throws {
        try Scene.play { scene in
            let cluster = try RedisCluster(spares: 1)
            defer { cluster.stop() }
            var file = Self.file(try scene.backend(), cluster.url, rate: 100, "300ms")
            file.rateLimit += ", onRedisLoss: closed"
            let node = try scene.node(file)
            try Self.reached(node)
            let client = "203.0.113.7"
            let slot = try Self.slot(cluster, Self.key(client, rate: 100))
            try cluster.move(slot: slot, from: Self.owner(slot), to: 3) { keysMoved in
                guard keysMoved else { return }
                cluster.servers[3].pause()
                defer { cluster.servers[3].resume() }
                // It does not go on before all have their answers.
                let first = try Self.burst(5, to: node, as: client)
                let second = try Self.burst(5, to: node, as: client)
                #expect(first == 0 && second == 0)
            }
        }
    }

    @Test("under load, a hundred slots move to and fro: everyone is answered, and no window holds more than its limit")
    func reshardingUnderLoad() throws {
        try Scene.play { scene in
            let cluster = try RedisCluster()
            defer { cluster.stop() }
            let backend = try scene.backend()
            let rate = 20
            let node = try scene.node(Self.file(backend, cluster.url, rate: rate))
            try Self.reached(node)
            let clients = (1...30).map { "203.0.113.\($0)" }
            let slots = try clients.map { try Self.slot(cluster, Self.key($0, rate: rate)) }
            var at = slots.map { Self.owner($0) }
            var admitted: [String: Int] = [:]
            let begin = wallSeconds()
            for round in 0..<90 {
                let index = round % clients.count
                let target = (at[index] + 1) % 3
                try cluster.move(slot: slots[index], from: at[index], to: target) { _ in
                    for client in [clients[index], clients[(index + 7) % clients.count]] {
                        admitted[client, default: 0] += try Self.burst(8, to: node, as: client)
                    }
                }
                at[index] = target
            }
            // So many windows lie in the time that it took, the first and the last in part.
            let windows = wallSeconds() - begin + 2
            for (client, count) in admitted { #expect(count <= rate * windows, "\(client)") }
            // By Redis's own account: the score of each entry is when it was admitted.
            for (client, place) in zip(clients, at) {
                let answer = try cluster.servers[place].client()(
                    "ZRANGE", Self.key(client, rate: rate), "0", "-1", "WITHSCORES")
                let times = answer.split(separator: "'").compactMap { Int64($0) }.sorted()
                for i in times.indices where i >= rate { #expect(times[i] - times[i - rate] >= 1_000_000, "\(client)") }
            }
            #expect(!node.log.contains("Redis lost"), "\(node.log)")
        }
    }

    @Test("when a server dies its replica takes over, and the others' windows never notice")
    func failover() throws {
        try Scene.play { scene in
            let cluster = try RedisCluster(replicas: 3)
            defer { cluster.stop() }
            let rate = 1_000
            let node = try scene.node(Self.file(try scene.backend(), cluster.url, rate: rate, "200ms"))
            try Self.reached(node)
            let clients = (1...20).map { "203.0.113.\($0)" }
            let ours = try #require(
                try clients.first { Self.owner(try Self.slot(cluster, Self.key($0, rate: rate))) == 1 })
            #expect(try Self.burst(1, to: node, as: ours) == 1)
            cluster.servers[1].kill()
            try eventually("decisions are made by the replica") {
                for client in clients {
                    let admitted = try Self.burst(1, to: node, as: client)
                    #expect(admitted == 1)
                }
                let there = try cluster.replicas[1].client()("ZCARD", Self.key(ours, rate: rate))
                return Int(there) ?? 0 > 0 && node.log.contains("limits hold over the cluster again")
            }
            #expect(node.log.contains("Redis lost: the loss rule decides limits"))
        }
    }
}
