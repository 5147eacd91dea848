import Glibc
import Primitives
import TestSupport
import Testing

@Suite("Limits through nodes", .serialized)
struct LimitTests {
    private static func file(_ backend: RecordingBackend, _ rateLimit: String) -> File {
        var file = File([backend])
        file.rateLimit = rateLimit
        file.gateway = "trustedProxies: [\"127.0.0.1/32\"]"
        return file
    }

    /// A node with a Redis and a backend of its own, which it has reached.
    static func node(
        _ scene: Scene, _ rateLimit: String
    ) throws -> (RedisServer, RecordingBackend, SluiceNode) {
        let redis = try scene.redis()
        let backend = try scene.backend()
        let url = "redis://127.0.0.1:\(redis.port)"
        let node = try scene.node(file(backend, "\(rateLimit), timeout: 5s, redisURL: \"\(url)\""))
        try reached([node])
        return (redis, backend, node)
    }

    /// Sends requests on one connection, all at once; returns the statuses.
    private static func burst(_ count: Int, to node: SluiceNode, as client: String? = nil) throws -> [WireMessage] {
        let wire = try node.connect()
        let field = client.map { "X-Forwarded-For: \($0)\r\n" } ?? ""
        try wire.send(String(repeating: "GET / HTTP/1.1\r\nHost: test\r\n\(field)\r\n", count: count))
        return try (0..<count).map { _ in try wire.readResponse() }
    }

    private static func admitted(_ answers: [WireMessage]) -> Int { answers.count { $0.status == 200 } }

    private static let redisPolicy = "requestsPerSecond: 50, burstSize: 50, timeout: 5s"

    @Test("in memory, a burst gets the bucket's size, and refused requests do not reach the backend")
    func memory() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            // One in a second at most trickles in while the burst runs.
            let node = try scene.node(Self.file(backend, "requestsPerSecond: 1, burstSize: 20"))
            let start = wallSeconds()
            let answers = try Self.burst(100, to: node)
            let trickle = wallSeconds() - start + 1
            #expect(Self.admitted(answers) >= 20)
            #expect(Self.admitted(answers) <= 20 + trickle)
            #expect(backend.requests.count == Self.admitted(answers))
            let refused = try #require(answers.last)
            #expect(refused.status == 429)
            #expect(problemTitle(refused) == "Rate limit exceeded")
        }
    }

    @Test("a rate that nobody can reach refuses nobody, however many ask at once")
    func unreachable() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = Self.file(backend, "requestsPerSecond: 1000000000, burstSize: 10")
            file.workers = "2"
            let node = try scene.node(file)
            let clients = try (0..<100).map { _ in try node.connect() }
            for _ in 0..<5 {
                for client in clients { try client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n") }
                let statuses = try clients.map { try $0.readResponse().status }
                #expect(statuses.allSatisfy { $0 == 200 }, "\(statuses.count { $0 == 429 }) of 100 refused")
            }
        }
    }

    @Test("over two nodes and one Redis, no second holds more than the limit, and refused requests consume nothing")
    func window() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let file = Self.file(backend, Self.redisPolicy + ", redisURL: \"redis://127.0.0.1:\(redis.port)\"")
            let nodes = [try scene.node(file, ["--node-id", "a"]), try scene.node(file, ["--node-id", "b"])]
            try Self.reached(nodes)
            let client = try redis.client()
            // The times of all decisions, by Redis's own clock: every admission is an entry with its time as score.
            var entries: [String: Int64] = [:]
            var admitted = 0
            var refusal: WireMessage?
            let key = "rate_limit:default:50/1s:ip:203.0.113.7"
            for round in 0..<40 {
                let answers = try Self.burst(30, to: nodes[round % 2], as: "203.0.113.7")
                admitted += Self.admitted(answers)
                refusal = answers.last { $0.status == 429 } ?? refusal
                for (member, score) in try Self.entries(client, key) { entries[member] = score }
            }
            #expect(admitted > 0)
            #expect(backend.requests.count == admitted)
            // An admission is in the set for a second, and was looked at more often than that, unless the machine
            // stood still: then some are missing here, never too many.
            #expect(entries.count <= admitted)
            let times = entries.values.sorted()
            for (index, time) in times.enumerated() where index >= 50 {
                #expect(time - times[index - 50] >= 1_000_000, "51 admissions within a second")
            }
            let refused = try #require(refusal)
            #expect(problemTitle(refused) == "Rate limit exceeded")
            #expect(refused.value("RateLimit-Policy") == "\"default\";q=50;w=1")
            #expect(refused.value("Retry-After") == "1")
            #expect(refused.value("RateLimit") == "\"default\";r=0;t=1")
        }
    }

    @Test("the window is a sorted set under a readable key, with a time to live; a refused client adds nothing to it")
    func sortedSet() throws {
        try Scene.play { scene in
            let (redis, _, node) = try Self.node(scene, "requestsPerSecond: 5, burstSize: 5")
            let client = try redis.client()
            let answers = try Self.burst(40, to: node, as: "198.51.100.4")
            let key = "rate_limit:default:5/1s:ip:198.51.100.4"
            #expect(try client("TYPE", key) == "+zset")
            let count = try #require(Int(try client("ZCARD", key)))
            #expect(count <= 5)
            #expect(count <= Self.admitted(answers))
            let life = try #require(Int(try client("PTTL", key)))
            #expect(life > 0)
            #expect(life <= 11_000)
            // README shows one, a moment after the last request.
            let shown = readFile(sourceTree() + "/README.md").firstMatch(of: /PTTL .*\n\(integer\) ([0-9]+)/)
            #expect(shown.flatMap { Int($0.1) }.map { (10_000...11_000).contains($0) && life > $0 - 5_000 } == true)
            // Every key of the limiter has an end.
            #expect(try client("KEYS", "rate_limit:*") == "['\(key)']")
        }
    }

    @Test("deleting the key gives the client its limit back")
    func reset() throws {
        try Scene.play { scene in
            let (redis, _, node) = try Self.node(scene, "requestsPerSecond: 3, burstSize: 3")
            let client = try redis.client()
            try eventually("a request is refused") {
                try Self.burst(10, to: node, as: "198.51.100.5").contains { $0.status == 429 }
            }
            _ = try client("DEL", "rate_limit:default:3/1s:ip:198.51.100.5")
            try eventually("a request passes") { try Self.burst(1, to: node, as: "198.51.100.5")[0].status == 200 }
        }
    }

    @Test("clients behind a trusted proxy have limits of their own; IPv6 goes by /64, mapped IPv4 by its address")
    func subjects() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let node = try scene.node(
                Self.file(backend, Self.redisPolicy + ", redisURL: \"redis://127.0.0.1:\(redis.port)\""))
            try Self.reached([node])
            let clients = [
                "192.0.2.1", "192.0.2.2", "2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1",
                "::ffff:192.0.2.1", "203.0.113.1, 192.0.2.9", "192.0.2.10:1234", "[2001:db8:1:4::1]:80",
            ]
            for client in clients { #expect(try Self.burst(1, to: node, as: client)[0].status == 200) }
            let outsider = try node.ask(fields: "X-Forwarded-For: 192.0.2.77\r\n", from: IPAddress("127.0.0.5"))
            #expect(outsider.status == 200)
            let keys = try redis.client()("KEYS", "rate_limit:*").dropFirst().dropLast().split(separator: " ")
            let subjects = keys.map { $0.dropFirst("'rate_limit:default:50/1s:".count).dropLast() }.sorted()
            #expect(
                subjects == [
                    "ip:127.0.0.5", "ip:192.0.2.1", "ip:192.0.2.10", "ip:192.0.2.2", "ip:192.0.2.9",
                    "ip:2001:db8:1:2::/64", "ip:2001:db8:1:3::/64", "ip:2001:db8:1:4::/64",
                ])
        }
    }

    @Test(
        "a Redis that is not there is no failure to start: each node admits, by the rule",
        arguments: ["share", "open", "closed"])
    func lostAtStart(rule: String) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            redis.kill()
            let backend = try scene.backend()
            let node = try scene.node(
                Self.file(
                    backend,
                    "requestsPerSecond: 20, burstSize: 20, onRedisLoss: \(rule), redisURL: \"redis://127.0.0.1:\(redis.port)\""
                ))
            let start = wallSeconds()
            let answers = try Self.burst(200, to: node, as: "192.0.2.1")
            let windows = wallSeconds() - start + 2
            switch rule {
            case "share":
                #expect(Self.admitted(answers) >= 20)
                #expect(Self.admitted(answers) <= 20 * windows)
            case "open": #expect(Self.admitted(answers) == 200)
            default: #expect(Self.admitted(answers) == 0)
            }
            #expect(backend.requests.count == Self.admitted(answers))
        }
    }

    @Test("a Redis that dies and comes back: the share rule meanwhile, then the window again")
    func lostMidway() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let file = Self.file(
                backend,
                "requestsPerSecond: 20, burstSize: 20, timeout: 50ms, redisURL: \"redis://127.0.0.1:\(redis.port)\"")
            let nodes = [try scene.node(file, ["--node-id", "a"]), try scene.node(file, ["--node-id", "b"])]
            try Self.reached(nodes)
            try eventually("each node knows of two") {
                try nodes.allSatisfy { try $0.admin("/api/nodes").text.components(of: "\"id\"") == 2 }
            }
            redis.kill()
            // Nothing but an answer: no request hangs and none is an error.
            for node in nodes {
                let start = wallSeconds()
                let answers = try Self.burst(300, to: node, as: "192.0.2.2")
                let windows = wallSeconds() - start + 2
                #expect(answers.allSatisfy { $0.status == 200 || $0.status == 429 })
                #expect(Self.admitted(answers) >= 10)
                // Half the limit each; the window that straddles the loss holds the whole limit more.
                #expect(Self.admitted(answers) <= 20 + 10 * windows)
            }
            try redis.start()
            let client = try redis.client()
            try eventually("the nodes use the window again") {
                _ = try nodes.map { try Self.burst(1, to: $0, as: "192.0.2.3") }
                return try client("EXISTS", "rate_limit:default:20/1s:ip:192.0.2.3") == "1"
            }
            for node in nodes { try eventually("the node says so") { node.log.contains("Redis is back") } }
        }
    }

    @Test("a node that starts decides nobody by the loss rule while it connects to Redis, and starts without one")
    func starting() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let limits = "requestsPerSecond: 100, burstSize: 100, onRedisLoss: closed, timeout: 5s, redisURL:"
            // It takes a while to answer.
            #expect(try redis.client()("CLIENT", "PAUSE", "700", "ALL") == "+OK")
            let node = try scene.node(Self.file(backend, "\(limits) \"redis://127.0.0.1:\(redis.port)\""))
            #expect(try node.ask().status == 200)
            let lonely = try scene.node(Self.file(backend, "\(limits) \"redis://127.0.0.1:1\""))
            #expect(try lonely.ask().status == 429)
        }
    }

    @Test("a Redis that hangs costs a few requests the timeout and none an answer")
    func hanging() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let node = try scene.node(
                Self.file(
                    backend,
                    "requestsPerSecond: 1000, burstSize: 1000, timeout: 20ms, onRedisLoss: open, redisURL: \"redis://127.0.0.1:\(redis.port)\""
                ))
            try Self.reached([node])
            redis.pause()
            defer { redis.resume() }
            for _ in 0..<5 { #expect(Self.admitted(try Self.burst(50, to: node, as: "192.0.2.4")) == 50) }
            redis.resume()
            let client = try redis.client()
            try eventually("the window is used again") {
                _ = try Self.burst(1, to: node, as: "192.0.2.6")
                return try client("EXISTS", "rate_limit:default:1000/1s:ip:192.0.2.6") == "1"
            }
        }
    }

    @Test("a rate of a billion overflows nothing", arguments: [true, false])
    func hugeRate(withRedis: Bool) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let url = withRedis ? ", timeout: 5s, redisURL: \"redis://127.0.0.1:\(redis.port)\"" : ""
            let node = try scene.node(
                Self.file(backend, "requestsPerSecond: 1000000000, burstSize: 1000000000\(url)"))
            if withRedis { try Self.reached([node]) }
            #expect(Self.admitted(try Self.burst(100, to: node)) == 100)
        }
    }

    /// Waits until nodes have Redis, for their limits too.
    static func reached(_ nodes: [SluiceNode]) throws {
        for node in nodes {
            try eventually("the node has joined") { try node.admin("/readyz").text.contains("\"cluster\":\"reached\"") }
        }
    }

    private static func entries(_ client: RedisTestClient, _ key: String) throws -> [(String, Int64)] {
        let words = try client("ZRANGE", key, "0", "-1", "WITHSCORES").dropFirst().dropLast().split(separator: " ")
        var entries: [(String, Int64)] = []
        var index = 0
        while index + 1 < words.count {
            let score = try #require(Int64(words[index + 1].filter { $0 != "'" }))
            entries.append((String(words[index]), score))
            index += 2
        }
        return entries
    }
}

/// Whole seconds of some clock, for bounds that grow with the time that a slow machine takes.
func wallSeconds() -> Int { time(nil) }

extension String {
    /// How often a text occurs.
    func components(of part: String) -> Int { ranges(of: part).count }
}
