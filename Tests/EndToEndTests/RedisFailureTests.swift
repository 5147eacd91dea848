import Glibc
import Primitives
import TestSupport
import Testing

@Suite("Redis that fails under a node", .serialized)
struct RedisFailureTests {
    private static func file(_ backend: RecordingBackend, _ url: String, _ more: String = "") -> File {
        var file = File([backend])
        file.rateLimit = "requestsPerSecond: 1000, burstSize: 1000, redisURL: \"\(url)\"" + more
        return file
    }

    private static func reached(_ node: SluiceNode) throws {
        try eventually("the node has reached Redis") {
            try node.admin("/readyz").text.contains("\"cluster\":\"reached\"")
        }
    }

    /// Asks until the node says that its limits hold over the cluster again. Nobody waits longer than the timeout for a
    /// server that does not serve.
    private static func askUntilRestored(_ node: SluiceNode, restored: Int = 1) throws {
        try eventually("limits hold over the cluster again") {
            let status = try node.ask().status
            #expect(status == 200)
            let lines = node.log.split(separator: "\n")
            return lines.count { $0.contains("limits hold over the cluster again") } >= restored
        }
    }

    /// How often a cause has got in the way.
    private static func count(_ node: SluiceNode, _ cause: String) throws -> Int {
        let text = try node.admin("/api/redis").text
        let number = text.split(separator: "\"\(cause)\":").dropFirst().first?.prefix { $0.isNumber }
        return try #require(number.flatMap { Int($0) }, "\(text)")
    }

    private static func lines(_ node: SluiceNode, _ words: String) -> Int {
        node.log.split(separator: "\n").count { $0.contains(words) }
    }

    @Test(
        "each refusal is named once with its remedy, counted, shown, decided by the loss rule, and over when it is over",
        arguments: [
            (
                ["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"], "refused: OOM",
                "raise maxmemory", "outOfMemory"
            ),
            (
                ["ACL", "SETUSER", "default", "-zadd"], ["ACL", "SETUSER", "default", "+zadd"], "refused: NOPERM",
                "ACL SETUSER default +zadd", "permission"
            ),
            (
                ["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"], "refused: READONLY", "name the primary",
                "readOnly"
            ),
            (
                ["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"],
                "refused: NOREPLICAS", "see what the server says", "unavailable"
            ),
            (
                [], ["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"], "refused: MISCONF",
                "see what the server says", "unavailable"
            ),
        ] as [([String], [String], String, String, String)])
    func refusals(spoil: [String], mend: [String], reason: String, remedy: String, cause: String) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let node = try scene.node(
                Self.file(try scene.backend(), "redis://127.0.0.1:\(redis.port)"), ["--set", "gateway.heartbeat=100ms"])
            try Self.reached(node)
            let client = try redis.client()
            if spoil.isEmpty { try redis.failToSave() } else { #expect(try client.ask(spoil) == "+OK") }
            try eventually("the loss is told") {
                let status = try node.ask().status
                #expect(status == 200)
                return node.log.split(separator: "\n").contains {
                    $0.contains("Redis lost") && $0.contains(reason) && $0.contains(remedy)
                }
            }
            try eventually("the heartbeats that are not taken are told") {
                node.log.split(separator: "\n").contains {
                    $0.contains("cluster out of reach") && $0.contains(reason) && $0.contains(remedy)
                }
            }
            // Many attempts later, all is as it was when the first was refused.
            try eventually("it has been tried again and again") { try Self.count(node, cause) >= 25 }
            for words in ["cluster out of reach", "joined the cluster", "Redis lost"] {
                #expect(Self.lines(node, words) == 1, "\(words): \(node.log)")
            }
            let ready = try node.admin("/readyz").text
            #expect(ready.contains("\"cluster\":\"lost\"") && ready.contains("\"limits\":\"lost\""), "\(ready)")
            #expect(ready.contains("Redis does not decide limits (\(reason)"), "\(ready)")
            #expect(ready.contains("the cluster is out of reach (\(reason)"), "\(ready)")
            let state = try node.admin("/api/redis").text
            #expect(state.contains("\"state\":\"lost\"") && state.contains("\"limits\":\"lost\""), "\(state)")
            #expect(state.contains("\"cluster\":\"\(reason)") && state.contains("\"limits\":\"\(reason)"), "\(state)")
            #expect(try node.metrics().value("sluice_redis_up") == 0)

            #expect(try client.ask(mend) == "+OK")
            try Self.askUntilRestored(node)
            try Self.reached(node)
            #expect(Self.lines(node, "joined the cluster") == 2)
            #expect(try node.metrics().value("sluice_redis_up") == 1)
            #expect(try node.admin("/readyz").text.contains("\"warnings\":[]"))
            #expect(try node.admin("/api/redis").text.contains("\"reasons\":{}"))
        }
    }

    @Test("a server that turns every connection away is told by its own words, also by commands")
    func tooManyClients() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let url = "redis://127.0.0.1:\(redis.port)"
            let file = Self.file(try scene.backend(), url)
            let node = try scene.node(file)
            try Self.reached(node)
            let client = try redis.client()
            #expect(try client.ask(["CONFIG", "SET", "maxclients", "1"]) == "+OK")
            for kind in ["normal", "pubsub"] { _ = try client.ask(["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]) }
            let reason = "refused: ERR max number of clients reached"
            try eventually("the reason is told") {
                let lines = node.log.split(separator: "\n").filter {
                    $0.contains(reason) && $0.contains("raise maxclients")
                }
                return lines.contains { $0.contains("Redis lost") } && lines.contains { $0.contains("out of reach") }
            }
            try eventually("it is shown and counted") {
                let ready = try node.admin("/readyz").text
                let count = try Self.count(node, "maxClients")
                return count > 0 && ready.contains("Redis does not decide limits (\(reason))")
                    && ready.contains("the cluster is out of reach (\(reason))")
            }
            for command in [["check", "--network", "--config", node.file], ["limits", "list", "--redis", url]] {
                let said = try runSluice(command)
                #expect(said.exit == 1)
                let text = said.output + said.errors
                #expect(text.contains(reason) && text.contains("raise maxclients"), "\(text)")
            }
            #expect(try client.ask(["CONFIG", "SET", "maxclients", "1000"]) == "+OK")
            try Self.askUntilRestored(node)
            try Self.reached(node)
        }
    }

    @Test("a right that some decisions alone need keeps the server from seeming to be back")
    func someDecisions() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            var file = Self.file(try scene.backend(), "")
            // Clients are told what remains, so each decision ends in ZCARD.
            file.rateLimit =
                "redisURL: \"redis://127.0.0.1:\(redis.port)\", policies: [{name: many, limit: 9999, window: 1s}]"
            let node = try scene.node(file)
            try Self.reached(node)
            let client = try redis.client()
            try client("ACL", "SETUSER", "default", "-zcard")
            try eventually("it has been tried again and again") {
                _ = try node.ask()
                return try Self.count(node, "permission") >= 10
            }
            #expect(Self.lines(node, "Redis lost") == 1, "\(node.log)")
            #expect(Self.lines(node, "limits hold over the cluster again") == 0)
            #expect(node.log.contains("ACL SETUSER default +zcard"))
            // The other nodes are reached all the same.
            let ready = try node.admin("/readyz").text
            #expect(ready.contains("\"cluster\":\"reached\"") && ready.contains("\"limits\":\"lost\""), "\(ready)")
            try client("ACL", "SETUSER", "default", "+zcard")
            try Self.askUntilRestored(node)
        }
    }

    @Test(
        "a key that holds something else is named once, with what helps, and counted for each decision",
        arguments: [(isBuckets: false, isSet: false), (true, false), (true, true)])
    func wrongType(isBuckets: Bool, isSet: Bool) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            var file = Self.file(try scene.backend(), "redis://127.0.0.1:\(redis.port)")
            if isBuckets {
                file.rateLimit =
                    "redisURL: \"redis://127.0.0.1:\(redis.port)\", policies: "
                    + "[{name: other, limit: 1000, window: 1s, key: ip, precision: buckets}]"
            }
            let node = try scene.node(file)
            try Self.reached(node)
            let client = try redis.client()
            let key = "rate_limit:\(isBuckets ? "other:1000/1s/buckets" : "default:1000/1s"):ip:127.0.0.1"
            if isSet { try client("ZADD", key, "5", "a word") } else { try client("SET", key, "not ours") }
            try eventually("decisions are counted") {
                let status = try node.ask().status
                #expect(status == 200)
                return try Self.count(node, "wrongType") >= 20
            }
            let told = node.log.split(separator: "\n").filter { $0.contains("a limit's key cannot be used") }
            #expect(told.count == 1, "\(node.log)")
            for words in ["WRONGTYPE", key, "redis-cli TYPE '\(key)'", "redis-cli DEL '\(key)'"] {
                #expect(told.first?.contains(words) == true, "\(told)")
            }
            #expect(!node.log.contains("was discarded"))
            // It says nothing of the server: others are decided by it.
            #expect(try node.admin("/readyz").text.contains("\"limits\":\"reached\""))
            try client("DEL", key)
            _ = try node.ask()
            #expect(try client("TYPE", key) == "+zset")
        }
    }

    /// Answers as Redis does, but ends each transaction in its own way.
    ///
    /// - Parameter trickles: whether it says that byte by byte, and slowly, to all but who logs in.
    private static func imposter(_ scene: Scene, exec: String, trickles: Bool = false) throws -> RecordingBackend {
        scene.add(
            try RecordingBackend(serving: { _, wire, _ in
                var isQueuing = false
                var isLoggedIn = false
                while let head = try wire.readLine(), let count = Int(head.dropFirst()) {
                    var words: [String] = []
                    for _ in 0..<count {
                        guard let length = try wire.readLine().flatMap({ Int($0.dropFirst()) }) else { return }
                        words.append(String(decoding: try wire.read(length), as: UTF8.self))
                        _ = try wire.readLine()
                    }
                    switch words[0] {
                    case "MULTI":
                        isQueuing = true
                        try wire.send("+OK\r\n")
                    case "EXEC":
                        isQueuing = false
                        guard trickles else {
                            try wire.send(exec)
                            break
                        }
                        guard isLoggedIn else {
                            isLoggedIn = true
                            try wire.send("*0\r\n")
                            break
                        }
                        for byte in exec.utf8 {
                            try wire.send([byte])
                            usleep(50_000)
                        }
                    case _ where isQueuing: try wire.send("+QUEUED\r\n")
                    case "TIME": try wire.send("*2\r\n$10\r\n1800000000\r\n$1\r\n0\r\n")
                    case "PING": try wire.send("*2\r\n$4\r\npong\r\n$0\r\n\r\n")
                    case "SUBSCRIBE":
                        for name in words.dropFirst() {
                            try wire.send("*3\r\n$9\r\nsubscribe\r\n$\(name.utf8.count)\r\n\(name)\r\n:1\r\n")
                        }
                    default: try wire.send("+OK\r\n")
                    }
                }
            }))
    }

    @Test(
        "an answer that no Redis gives is told as that, at once, and no key is blamed for it",
        arguments: ["*0\r\n", "*-1\r\n", ":1\r\n", "$99999999999\r\n", "*2000000000\r\n", "*1\r\n$3\r\nabcd\r\n"])
    func imposters(exec: String) throws {
        try Scene.play { scene in
            let imposter = try Self.imposter(scene, exec: exec)
            // What is told must not be that it was slow.
            let url = "redis://127.0.0.1:\(imposter.address.port)"
            let node = try scene.node(Self.file(try scene.backend(), url, ", timeout: 1s"))
            for words in ["Redis lost", "cluster out of reach"] {
                try eventually("\(words) is told") {
                    let status = try node.ask().status
                    #expect(status == 200)
                    return node.log.split(separator: "\n").contains {
                        $0.contains(words) && $0.contains("malformed answer")
                    }
                }
            }
            try eventually("it has been tried again") { try Self.count(node, "malformed") >= 5 }
            #expect(try Self.count(node, "silent") == 0)
            #expect(!node.log.contains("holds more than any cluster"), "\(node.log)")
            #expect(!node.log.contains("joined the cluster"))
        }
    }

    @Test("answers that trickle are none: the line to the others and the limits are lost, with or without traffic")
    func trickling() throws {
        try Scene.play { scene in
            let answer = "*1\r\n$1000\r\n" + String(repeating: "x", count: 1_000)
            let imposter = try Self.imposter(scene, exec: answer, trickles: true)
            let url = "redis://127.0.0.1:\(imposter.address.port)"
            let node = try scene.node(Self.file(try scene.backend(), url))
            for words in ["Redis lost", "cluster out of reach"] {
                try eventually("\(words) is told") {
                    node.log.split(separator: "\n").contains {
                        $0.contains(words) && $0.contains("no answer") && $0.contains("Redis or the network hangs")
                    }
                }
            }
            #expect(try Self.count(node, "silent") > 0)
        }
    }

    @Test("a password that is asked for and not given is named, and the node is well as soon as it is not asked for")
    func login() throws {
        try Scene.play { scene in
            let redis = try scene.redis(["--requirepass", "a b"])
            let node = try scene.node(Self.file(try scene.backend(), "redis://127.0.0.1:\(redis.port)"))
            try eventually("the loss is told") {
                node.log.contains("NOAUTH") && node.log.contains("set the user and the password")
            }
            #expect(try node.ask().status == 200)
            let client = try redis.client()
            #expect(try client("AUTH", "a b") == "+OK")
            #expect(try client("CONFIG", "SET", "requirepass", "") == "+OK")
            try Self.askUntilRestored(node)
            // The right one works, percent-encoded; so does a user of its own with the rights that the documents list.
            #expect(try client("CONFIG", "SET", "requirepass", "a b") == "+OK")
            #expect(
                try client(
                    "ACL", "SETUSER", "sluice", "on", ">p@ss", "~rate_limit:*", "~sluice:*", "&sluice:*", "-@all",
                    "+@connection", "+@transaction", "+time", "+role", "+zadd", "+zrem", "+zrange", "+zrevrange",
                    "+zremrangebyscore", "+zremrangebyrank", "+zcard", "+pexpire", "+setnx", "+set", "+get", "+hset",
                    "+hget",
                    "+hgetall", "+hdel", "+publish", "+subscribe") == "+OK")
            for (id, login) in [("default", ":a%20b"), ("own", "sluice:p%40ss")] {
                let other = try scene.node(
                    Self.file(try scene.backend(), "redis://\(login)@127.0.0.1:\(redis.port)"), ["--node-id", id])
                try Self.reached(other)
                #expect(try other.ask().status == 200)
                #expect(!other.log.contains("refused"), "\(other.log)")
                #expect(!other.log.contains("p%40ss"))
            }
        }
    }

    @Test("a server that hangs, is killed, loads its data and is flushed costs nobody more than the timeout")
    func hangs() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let node = try scene.node(
                Self.file(try scene.backend(), "redis://127.0.0.1:\(redis.port)", ", timeout: 100ms"))
            try Self.reached(node)
            redis.pause()
            for _ in 0..<5 { #expect(try node.ask().status == 200) }
            try eventually("the loss is told") { node.log.contains("Redis or the network hangs") }
            redis.resume()
            try Self.askUntilRestored(node)
            redis.kill()
            try eventually("the loss is told") { node.log.contains("see whether Redis runs") }
            #expect(try node.ask().status == 200)
            try redis.start()
            try Self.askUntilRestored(node, restored: 2)
            let client = try redis.client()
            try eventually("the marker is known") { try client("EXISTS", "sluice:epoch") == "1" }
            try eventually("the flush is noticed") {
                let status = try node.ask().status
                #expect(status == 200)
                if !node.log.contains("Redis has lost its data") { try client("FLUSHALL") }
                return node.log.contains("Redis has lost its data")
            }
        }
    }
}
