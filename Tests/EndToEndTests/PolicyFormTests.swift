import Primitives
import TestSupport
import Testing

@Suite("Policies that weigh, and policies in buckets", .serialized)
struct PolicyFormTests {
    private static func file(_ backend: RecordingBackend, _ policies: String, _ redis: RedisServer?) -> File {
        var file = File([File.Service(name: "api", path: "/api", urls: [backend.url])])
        let url = redis.map { ", timeout: 5s, redisURL: \"redis://127.0.0.1:\($0.port)\"" } ?? ""
        file.rateLimit = "policies: [\(policies)]\(url)"
        file.gateway = "trustedProxies: [\"127.0.0.1/32\"]"
        return file
    }

    private static func send(
        _ request: String, _ count: Int = 1, to node: SluiceNode, as client: String = "192.0.2.1"
    ) throws -> [WireMessage] {
        let wire = try node.connect()
        let text = "\(request) HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nX-Forwarded-For: \(client)\r\n\r\n"
        try wire.send(String(repeating: text, count: count))
        return try (0..<count).map { _ in try wire.readResponse() }
    }

    @Test(
        "requests take as many slots as their method and path cost, all or none",
        arguments: ["exact", "buckets", "memory"])
    func costs(form: String) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let withRedis = form != "memory"
            let node = try scene.node(
                Self.file(
                    try scene.backend(),
                    """
                    {name: weighed, limit: 12, window: 1h, precision: \(withRedis ? form : "exact"), \
                    cost: {default: 1, methods: {POST: 5, OPTIONS: 0}, paths: {/api/search: 10}}}
                    """, withRedis ? redis : nil))
            if withRedis { try LimitTests.reached([node]) }
            func remaining(_ answer: WireMessage) -> String? { answer.value("RateLimit") }
            let first = try Self.send("POST /api", to: node)[0]
            #expect(first.status == 200)
            #expect(remaining(first) == "\"weighed\";r=7")
            // Ten do not fit, and leave the seven to others.
            let search = try Self.send("GET /api/se%61rch", to: node)[0]
            #expect(search.status == 429)
            #expect(search.text.contains("\"violated-policies\":[\"weighed\"]"))
            let wait = try #require(search.value("Retry-After").flatMap { Int($0) })
            // Three of the five must leave, which takes a whole window by Redis and by the hour's part in memory.
            #expect(withRedis ? wait > 3_500 && wait < 3_700 : wait >= 900 && wait < 960)
            #expect(try Self.send("OPTIONS /api", 20, to: node).allSatisfy { $0.status == 200 })
            let posted = try Self.send("POST /api", to: node)[0]
            #expect(posted.status == 200)
            #expect(remaining(posted) == "\"weighed\";r=2")
            #expect(try Self.send("POST /api", to: node)[0].status == 429)
            #expect(try Self.send("GET /api", 4, to: node).map(\.status) == [200, 200, 429, 429])
            guard withRedis else { return }
            let client = try redis.client()
            if form == "exact" {
                try eventually("twelve slots are taken") {
                    try client("ZCARD", "rate_limit:weighed:12/1h:ip:192.0.2.1") == "12"
                }
            } else {
                let key = "rate_limit:weighed:12/1h/buckets:ip:192.0.2.1"
                try eventually("twelve slots are counted") {
                    let numbers = try client("ZRANGE", key, "0", "-1", "WITHSCORES").split(separator: "'")
                        .compactMap { Int($0) }
                    return stride(from: 1, to: numbers.count, by: 2).reduce(0) { $0 + numbers[$1] } == 12
                }
            }
        }
    }

    @Test("a large limit in buckets is exact over two nodes, and takes next to no memory in Redis")
    func buckets() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let backend = try scene.backend()
            let file = Self.file(
                backend, "{name: big, limit: 3000, window: 30d, key: global, precision: buckets}", redis)
            let nodes = [try scene.node(file, ["--node-id", "a"]), try scene.node(file, ["--node-id", "b"])]
            try LimitTests.reached(nodes)
            var admitted = 0
            for round in 0..<40 {
                admitted += try Self.send("GET /api", 100, to: nodes[round % 2]).count { $0.status == 200 }
            }
            #expect(admitted == 3_000)
            #expect(backend.requests.count == 3_000)
            let client = try redis.client()
            let key = "rate_limit:big:3000/30d/buckets:global"
            #expect(try #require(Int(try client("ZCARD", key))) <= 2)
            #expect(try #require(Int(try client("MEMORY", "USAGE", key))) < 300)
            #expect(try #require(Int(try client("PTTL", key))) > 2_591_000_000)
            let refused = try Self.send("GET /api", to: nodes[0])[0]
            let wait = try #require(refused.value("Retry-After").flatMap { Int($0) })
            // A hundredth of the window, and what clocks may part in a month.
            #expect(wait > 2_591_000 && wait < 2_592_000 + 25_920 + 700)
        }
    }
}
