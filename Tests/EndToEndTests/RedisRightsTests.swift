import Glibc
import Primitives
import TestSupport
import Testing

/// Users of Redis whose rights do not reach for what is published. New users may use no channel since Redis 7.
@Suite("Redis without the right to listen", .serialized)
struct RedisRightsTests {
    private static func file(_ backends: [RecordingBackend], _ redis: RedisServer) -> File {
        var file = File(backends, "circuitBreaker: {failures: 1000}")
        file.services[0].health =
            "interval: 200ms, warningInterval: 100ms, downInterval: 100ms, timeout: 5s, cooldown: 200ms, cooldownMax: 1s"
        file.gateway = "heartbeat: 100ms"
        file.rateLimit =
            "requestsPerSecond: 1000, burstSize: 1000, redisURL: \"redis://u:pw@127.0.0.1:\(redis.port)\""
        return file
    }

    @Test(
        "it is told with the rule that grants it, and heartbeats, verdicts and limits go on",
        arguments: [
            (["resetchannels"], "'&sluice:*'", ["allchannels"]),
            (["allchannels", "-subscribe"], "+subscribe", ["+subscribe"]),
            (["allchannels", "-subscribe", "-publish"], "+subscribe", ["+subscribe", "+publish"]),
        ] as [([String], String, [String])])
    func deaf(rights: [String], rule: String, grant: [String]) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let client = try redis.client()
            #expect(try client.ask(["ACL", "SETUSER", "u", "on", ">pw", "~*", "+@all"] + rights) == "+OK")
            let dying = try scene.backend(named: "dying")
            let steady = try scene.backend(named: "steady")
            let file = Self.file([dying, steady], redis)
            let nodes = try ["a", "b", "c"].map { try scene.node(file, ["--node-id", $0]) }
            for node in nodes {
                try eventually("it has joined") { try node.isReached() }
                try eventually("it sees all") { try node.admin("/api/nodes").text.components(of: "\"id\":") == 3 }
                try eventually("what is missing is told") {
                    node.log.split(separator: "\n").contains {
                        $0.contains("news of the cluster are not heard") && $0.contains("NOPERM")
                            && $0.contains("ACL SETUSER u \(rule) grants it")
                    }
                }
                try eventually("it is counted") {
                    (try node.metrics().value("sluice_redis_errors_total", ["cause": "permission"]) ?? 0) >= 3
                }
                #expect(node.log.components(of: "news of the cluster are not heard") == 1, "\(node.log)")
                #expect(node.log.components(of: "joined the cluster") == 1)
                #expect(!node.log.contains("out of reach"))
                #expect(try node.metrics().value("sluice_redis_up") == 1)
                let ready = try node.admin("/readyz").text
                #expect(ready.contains("\"limits\":\"reached\""), "\(ready)")
                #expect(
                    ready.contains("\"warnings\":[\"news of the cluster are not heard (refused: NOPERM"), "\(ready)")
            }
            _ = try nodes[0].ask()
            #expect(try client("EXISTS", "rate_limit:default:1000/1s:ip:127.0.0.1") == "1")

            // One node notices; the others read what it has written.
            dying.stop()
            try eventually("the first holds it to be down") {
                _ = try nodes[0].ask()
                return try nodes[0].row(of: dying.url).contains("\"a\":\"down\"")
            }
            try eventually("it has written so") {
                try client("HGET", "sluice:health:main", "\(dying.url)|a").contains("down")
            }
            for node in nodes { try eventually("all hold it to be down") { try node.calls(dying.url, "down") } }

            #expect(try client.ask(["ACL", "SETUSER", "u"] + grant) == "+OK")
            for node in nodes {
                try eventually("it hears again") { node.log.contains("news of the cluster are heard again") }
                try eventually("nothing is left to warn of") {
                    try !node.admin("/readyz").text.contains("are not heard")
                }
            }
        }
    }

    @Test(
        "without transactions nothing is written, and the rule that is missing is named", arguments: ["multi", "exec"])
    func withoutTransactions(command: String) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let client = try redis.client()
            let rights = ["on", ">pw", "~*", "allchannels", "+@all", "-\(command)"]
            #expect(try client.ask(["ACL", "SETUSER", "u"] + rights) == "+OK")
            let file = Self.file([try scene.backend()], redis)
            let node = try scene.node(file)
            for words in ["Redis lost", "cluster out of reach"] {
                try eventually("\(words) is told") {
                    node.log.split(separator: "\n").contains {
                        $0.contains(words) && $0.contains("NOPERM")
                            && $0.contains("ACL SETUSER u +\(command) grants it")
                    }
                }
            }
            #expect(try node.ask().status == 200)
            #expect(try client("DBSIZE") == "0")
            #expect((try node.metrics().value("sluice_redis_errors_total", ["cause": "permission"]) ?? 0) > 0)
            #expect(try node.metrics().value("sluice_redis_errors_total", ["cause": "malformed"]) ?? 0 == 0)
            let said = try runSluice(["check", "--network", "--config", node.file])
            #expect(said.exit == 1 && (said.output + said.errors).contains("+\(command) grants it"), "\(said)")
            #expect(try client.ask(["ACL", "SETUSER", "u", "+\(command)"]) == "+OK")
            try eventually("it has joined") { try node.isReached() }
            try eventually("limits hold") { node.log.contains("limits hold over the cluster again") }
        }
    }

    @Test("who may not copy windows begins anew with a limit that has changed, and is told so once, whoever asks")
    func carrying() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let client = try redis.client()
            #expect(try client("ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "+@all", "-zunionstore") == "+OK")
            let backend = try scene.backend()
            func file(_ limit: Int) -> File {
                var file = File([backend])
                file.workers = "2"
                file.gateway = "trustedProxies: [\"127.0.0.1/32\"]"
                file.rateLimit =
                    "redisURL: \"redis://u:pw@127.0.0.1:\(redis.port)\", timeout: 5s, onRedisLoss: closed, "
                    + "policies: [{name: hour, limit: \(limit), window: 1h}]"
                return file
            }
            let node = try scene.node(file(5))
            try LimitTests.reached([node])
            func admitted(_ asked: Int, _ client: String) throws -> Int {
                try LimitsCommandTests.burst(asked, "/", to: node, as: client)
            }
            let clients = (1...8).map { "192.0.2.\($0)" }
            for client in clients { #expect(try admitted(6, client) == 5) }
            try node.reload(file(3).yaml)
            for client in clients { #expect(try admitted(4, client) == 3) }
            let words = "windows of a limit that has changed are not taken along"
            let lines = node.log.split(separator: "\n").filter { $0.contains(words) }
            #expect(lines.count == 1, "\(node.log)")
            let line = try #require(lines.first)
            for part in ["policy=hour", "NOPERM", "ACL SETUSER u +zunionstore grants it"] {
                #expect(line.contains(part), "\(line)")
            }
            #expect(!line.contains("192.0.2"))
            #expect(!node.log.contains("the loss rule decides"), "\(node.log)")
            // The right counts for the next change, and for what the limits before still hold.
            #expect(try client("ACL", "SETUSER", "u", "+zunionstore") == "+OK")
            try node.reload(file(10).yaml)
            for client in clients { #expect(try admitted(4, client) == 2) }
            #expect(node.log.components(of: words) == 1)
        }
    }

    @Test("who may listen and not publish writes all the same, and says so once")
    func mute() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let client = try redis.client()
            #expect(try client("ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "+@all", "-publish") == "+OK")
            let dying = try scene.backend(named: "dying")
            let file = Self.file([dying, try scene.backend(named: "steady")], redis)
            let node = try scene.node(file, ["--node-id", "a"])
            try eventually("it has joined") { try node.isReached() }
            dying.stop()
            try eventually("it has written what it holds") {
                _ = try node.ask()
                return try client("HGET", "sluice:health:main", "\(dying.url)|a").contains("down")
            }
            try eventually("that it is not heard is told") {
                node.log.contains("news cannot be published") && node.log.contains("ACL SETUSER u +publish grants it")
            }
            #expect(node.log.components(of: "news cannot be published") == 1)
            #expect(node.log.components(of: "joined the cluster") == 1)
            #expect(try node.isReached())
        }
    }
}
