import LinuxIO
import Primitives
import TestSupport
import Testing

@Suite("Requests at once, through nodes", .serialized)
struct ConcurrentTests {
    private static func file(_ backend: RecordingBackend, _ policies: String, _ redis: String?) -> File {
        var file = File([
            File.Service(name: "api", path: "/", urls: [backend.url], more: "upgrades: [websocket]")
        ])
        file.rateLimit = "policies: [\(policies)]" + (redis.map { ", timeout: 5s, redisURL: \"\($0)\"" } ?? "")
        return file
    }

    private static func url(_ redis: RedisServer) -> String { "redis://127.0.0.1:\(redis.port)" }

    /// Asks for a tunnel: `nil` where it is refused.
    private static func tunnel(_ node: SluiceNode) throws -> Wire? {
        let wire = try node.connect()
        try wire.send(TunnelScene.request)
        let head = try #require(try wire.readHead())
        if head.status == 101 { return wire }
        #expect(head.status == 429)
        #expect(head.value("RateLimit-Policy")?.hasPrefix("\"runs\";q=2;qu=\"concurrent-requests\"") == true)
        #expect(head.value("Retry-After") == "1")
        return nil
    }

    private static func key(onCluster: Bool) -> String {
        onCluster ? "rate_limit:{runs:2/concurrent:global}" : "rate_limit:runs:2/concurrent:global"
    }

    /// The leases, wherever they are.
    private static func leases(_ servers: [RedisServer], onCluster: Bool) throws -> String {
        for server in servers {
            let answer = try server.client()("ZRANGE", key(onCluster: onCluster), "0", "-1", "WITHSCORES")
            if !answer.hasPrefix("-") { return answer }
        }
        return ""
    }

    @Test(
        "tunnels hold their slots over two nodes for longer than a lease lasts, and free them as they end",
        arguments: [false, true])
    func tunnels(onCluster: Bool) throws {
        try Scene.play { scene in
            let backend = try TunnelScene.echo(scene)
            let cluster = onCluster ? try RedisCluster() : nil
            defer { cluster?.stop() }
            let servers = try cluster?.servers ?? [scene.redis()]
            let file = Self.file(
                backend, "{name: runs, concurrent: 2, lease: 1s, key: global}", cluster?.url ?? Self.url(servers[0]))
            let nodes = [try scene.node(file, ["--node-id", "a"]), try scene.node(file, ["--node-id", "b"])]
            try LimitTests.reached(nodes)
            let first = try #require(try Self.tunnel(nodes[0]))
            let second = try #require(try Self.tunnel(nodes[1]))
            let before = try Self.leases(servers, onCluster: onCluster)
            let begin = SystemClock.monotonic()
            try eventually("both are renewed several times") {
                let refused = try Self.tunnel(nodes[0])
                #expect(refused == nil)
                return SystemClock.monotonic() - begin > .milliseconds(2_500)
            }
            let after = try Self.leases(servers, onCluster: onCluster)
            // The same two names, with later times.
            let names = { (text: String) in text.split(separator: "'").filter { $0.contains("-") }.sorted() }
            #expect(names(before).count == 2 && names(after) == names(before) && after != before)
            first.close()
            var third: Wire?
            try eventually("another has room") {
                third = try Self.tunnel(nodes[1])
                return third != nil
            }
            second.close()
            third?.close()
            try eventually("all is given back") {
                try Self.leases(servers, onCluster: onCluster) == "[]"
            }
        }
    }

    @Test("a node that is killed frees its slots within a lease")
    func killed() throws {
        try Scene.play { scene in
            let backend = try TunnelScene.echo(scene)
            let redis = try scene.redis()
            let file = Self.file(backend, "{name: runs, concurrent: 2, lease: 1s, key: global}", Self.url(redis))
            let nodes = [try scene.node(file, ["--node-id", "a"]), try scene.node(file, ["--node-id", "b"])]
            try LimitTests.reached(nodes)
            let wires = [try #require(try Self.tunnel(nodes[0])), try #require(try Self.tunnel(nodes[0]))]
            #expect(try Self.tunnel(nodes[1]) == nil)
            nodes[0].kill()
            try eventually("its slots come back") { try Self.tunnel(nodes[1]) != nil }
            for wire in wires { wire.close() }
        }
    }

    @Test("each end of a request frees its slot: an answer, a client that leaves", arguments: [true, false])
    func ends(withRedis: Bool) throws {
        try Scene.play { scene in
            let backend = scene.add(
                try RecordingBackend(serving: { backend, wire, _ in
                    while let request = try wire.readHead() {
                        if request.target == "/health" {
                            try wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                            continue
                        }
                        backend.record(request)
                        // Silence, until the gateway gives up.
                        if request.target == "/silent" {
                            _ = try? wire.read(1)
                            return
                        }
                        try wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    }
                }))
            let redis = try scene.redis()
            let node = try scene.node(
                Self.file(backend, "{name: runs, concurrent: 2}", withRedis ? Self.url(redis) : nil))
            if withRedis { try LimitTests.reached([node]) }
            let wire = try node.connect()
            for _ in 0..<20 {
                try wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                let answer = try wire.readResponse()
                #expect(answer.status == 200)
                #expect(answer.value("RateLimit") == "\"runs\";r=1")
            }
            let silent = [try node.connect(), try node.connect()]
            for wire in silent { try wire.send("GET /silent HTTP/1.1\r\nHost: test\r\n\r\n") }
            try eventually("both wait for the backend") { backend.requests.count { $0.target == "/silent" } == 2 }
            try wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            let refused = try wire.readResponse()
            #expect(refused.status == 429)
            #expect(refused.text.contains("\"violated-policies\":[\"runs\"]"))
            for wire in silent { wire.close() }
            try eventually("there is room again") {
                try wire.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                return try wire.readResponse().status == 200
            }
            guard withRedis else { return }
            let client = try redis.client()
            try eventually("nothing is left in Redis") {
                try client("ZCARD", "rate_limit:runs:2/concurrent:ip:127.0.0.1") == "0"
            }
        }
    }
}
