import Glibc
import Primitives
import TestSupport
import Testing

@Suite("Redis behind sentinels", .serialized)
struct SentinelTests {
    private static func file(_ backend: RecordingBackend, _ url: String, rate: Int) -> File {
        var file = File([backend])
        file.rateLimit = "requestsPerSecond: \(rate), timeout: 200ms, redisURL: \"\(url)\""
        return file
    }

    @Test("nodes follow a failover, planned or not, and come to rest on the new primary", arguments: [true, false])
    func failover(planned: Bool) throws {
        try Scene.play { scene in
            let group = try SentinelGroup()
            defer { group.stop() }
            // The first sentinel is gone: the others know as much.
            group.killSentinel(0)
            let node = try scene.node(Self.file(try scene.backend(), group.url, rate: 1_000))
            try eventually("the node has reached Redis") { try node.isReached() }
            let key = "rate_limit:default:1000/1s:ip:127.0.0.1"
            try eventually("decisions are made by the primary") {
                let status = try node.ask().status
                #expect(status == 200)
                return try group.servers[0].client()("EXISTS", key) == "1"
            }
            if planned {
                let sentinel = try RedisTestClient(BlockingSocket(port: group.sentinelPorts[1]))
                try eventually("the failover is taken on") {
                    try sentinel("SENTINEL", "FAILOVER", "main") == "+OK"
                }
            } else {
                group.servers[0].pause()
            }
            try eventually("the sentinels lead to the other server") {
                // Nobody is refused and nobody waits meanwhile.
                let status = try node.ask().status
                #expect(status == 200)
                return try group.primaryPort() == group.servers[1].port
            }
            let other = try group.servers[1].client()
            try eventually("decisions are made there") {
                let status = try node.ask().status
                #expect(status == 200)
                return try other("EXISTS", key) == "1"
                    && (try other("CLIENT", "LIST").contains("name=sluice-")) && node.isReached()
            }
            #expect(try other("EXISTS", "sluice:nodes") == "1")
            if !planned { group.servers[0].resume() }
        }
    }

    @Test("a backend dies while the sentinels put another Redis in the first one's place: no request fails, all agree")
    func backendDiesMeanwhile() throws {
        try Scene.play { scene in
            let group = try SentinelGroup()
            defer { group.stop() }
            let dying = try scene.backend(named: "dying")
            let steady = try scene.backend(named: "steady")
            var file = File([dying, steady], "circuitBreaker: {failures: 1000}")
            file.services[0].health =
                "interval: 1s, warningInterval: 200ms, downInterval: 100ms, timeout: 1s, cooldown: 500ms, cooldownMax: 1s"
            file.gateway = "heartbeat: 200ms"
            file.rateLimit = "timeout: 200ms, redisURL: \"\(group.url)\""
            let nodes = try ["a", "b", "c"].map { try scene.node(file, ["--node-id", $0]) }
            for node in nodes {
                try eventually("it sees all") { try node.admin("/api/nodes").text.components(of: "\"id\":") == 3 }
            }
            let traffic = Traffic(nodes)
            defer { traffic.stop() }
            try eventually("traffic flows") { traffic.asked > 100 }
            group.servers[0].pause()
            dying.stop()
            for node in nodes { try eventually("it is left without Redis") { try !node.uses(dying.url) } }
            try eventually("the sentinels lead to the other server") {
                try group.primaryPort() == group.servers[1].port
            }
            let all = "\"votes\":{\"a\":\"down\",\"b\":\"down\",\"c\":\"down\"}"
            for node in nodes {
                try eventually("it agrees with the others") {
                    try node.isReached() && node.calls(dying.url, "down") && node.row(of: dying.url).contains(all)
                }
            }
            let hash = try group.servers[1].client()("HGETALL", "sluice:health:main")
            for name in ["a", "b", "c"] { #expect(hash.contains("\(dying.url)|\(name)")) }
            // The old one is a replica when it wakes: nobody goes back to it.
            group.servers[0].resume()
            let reborn = try scene.backend(named: "reborn", port: dying.address.port)
            for node in nodes { try eventually("it is used again") { try node.uses(reborn.url) } }
            #expect(traffic.failed.isEmpty)
        }
    }

    @Test("a wrong password of the servers is told as that, again and again, also by commands")
    func wrongPassword() throws {
        try Scene.play { scene in
            let group = try SentinelGroup(downAfter: 60_000)
            defer { group.stop() }
            #expect(try group.servers[0].client()("CONFIG", "SET", "requirepass", "right") == "+OK")
            let url = group.url.replacing("redis+sentinel://", with: "redis+sentinel://:wrong@")
            let node = try scene.node(Self.file(try scene.backend(), url, rate: 10))
            try eventually("it has been tried again and again") {
                try node.metrics().value("sluice_redis_errors_total", ["cause": "login"]) ?? 0 >= 10
            }
            #expect(try node.metrics().value("sluice_redis_errors_total", ["cause": "unreachable"]) == 0, "\(node.log)")
            let state = try node.admin("/api/redis").text
            #expect(state.contains("\"cluster\":\"refused: WRONGPASS"), "\(state)")
            #expect(state.contains("\"limits\":\"refused: WRONGPASS"), "\(state)")
            for command in [["check", "--network", "--config", node.file], ["limits", "list", "--redis", url]] {
                let said = try runSluice(command)
                #expect(said.exit == 1)
                let text = said.output + said.errors
                #expect(text.contains("WRONGPASS") && text.contains("set the user and the password"), "\(text)")
            }
        }
    }

    @Test("a sentinels' user that may not listen is warned of, and the one that is documented hears of failovers")
    func rights() throws {
        try Scene.play { scene in
            let group = try SentinelGroup()
            defer { group.stop() }
            let text = readFile(sourceTree() + "/docs/redis.md")
            let line = try #require(
                text.split(separator: "\n").first { $0.hasPrefix("redis-cli -h s1 -p 26379 ACL SETUSER ") })
            let words = line.split(separator: " ").dropFirst(5).map { word in
                word.filter { $0 != "'" }.replacing(">PASSWORD", with: ">pw")
            }
            try group.eachSentinel { (client: RedisTestClient) throws in
                #expect(try client.ask(words) == "+OK")
                #expect(try client("ACL", "SETUSER", "sluice", "resetchannels") == "+OK")
            }
            let url = group.url + "?sentinelUser=sluice&sentinelPassword=pw"
            let node = try scene.node(Self.file(try scene.backend(), url, rate: 1_000))
            try eventually("the node has reached Redis") { try node.isReached() }
            try eventually("it is told") {
                node.log.split(separator: "\n").contains {
                    $0.contains("sentinels are not heard") && $0.contains("NOPERM")
                        && $0.contains("'&+switch-master' '&+promoted-slave' grants it, on each sentinel")
                }
            }
            #expect(try node.admin("/readyz").text.contains("\"warnings\":[\"sentinels are not heard"))
            #expect(try node.admin("/api/redis").text.contains("\"sentinels\":\"sentinel 127.0.0.1:"))
            try group.eachSentinel { (client: RedisTestClient) throws in #expect(try client.ask(words) == "+OK") }
            try eventually("it hears") { node.log.contains("sentinels are heard again") }
            #expect(node.log.split(separator: "\n").count { $0.contains("sentinels are not heard") } == 1)
            #expect(try node.admin("/readyz").text.contains("\"warnings\":[]"))
            try group.eachSentinel { _ = try $0("SENTINEL", "FAILOVER", "main") }
            try eventually("the sentinels lead to the other server") {
                try group.primaryPort() == group.servers[1].port
            }
            let other = try group.servers[1].client()
            try eventually("the node is there") {
                try other("CLIENT", "LIST").contains("name=sluice-") && node.isReached()
            }
        }
    }

    @Test("a service that no sentinel knows is told, and nobody waits for it")
    func unknown() throws {
        try Scene.play { scene in
            let group = try SentinelGroup()
            defer { group.stop() }
            let url = group.url.replacingSuffix("/main", with: "/other")
            let node = try scene.node(Self.file(try scene.backend(), url, rate: 10))
            try eventually("it is told") { node.log.contains("knows no other") }
            #expect(try node.ask().status == 200)
        }
    }
}

extension String {
    fileprivate func replacingSuffix(_ suffix: String, with other: String) -> String {
        hasSuffix(suffix) ? dropLast(suffix.count) + other : self
    }
}
