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

    @Test(
        "each refusal is named with its remedy, counted, decided by the loss rule, and over when it is over",
        arguments: [
            (
                ["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"], "refused: OOM",
                "raise maxmemory", "outOfMemory"
            ),
            (
                ["ACL", "SETUSER", "default", "-zadd"], ["ACL", "SETUSER", "default", "+zadd"], "refused: NOPERM",
                "docs/redis.md", "permission"
            ),
            (
                ["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"], "refused: READONLY", "name the primary",
                "readOnly"
            ),
        ] as [([String], [String], String, String, String)])
    func refusals(spoil: [String], mend: [String], reason: String, remedy: String, cause: String) throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let node = try scene.node(Self.file(try scene.backend(), "redis://127.0.0.1:\(redis.port)"))
            try Self.reached(node)
            let client = try redis.client()
            #expect(try client.ask(spoil) == "+OK")
            try eventually("the loss is told") {
                let status = try node.ask().status
                #expect(status == 200)
                return node.log.split(separator: "\n").contains {
                    $0.contains("Redis lost") && $0.contains(reason) && $0.contains(remedy)
                }
            }
            #expect(!(try node.admin("/api/redis").text.contains("\"\(cause)\":0")))
            #expect(try client.ask(mend) == "+OK")
            try Self.askUntilRestored(node)
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
                    "+zremrangebyscore", "+zremrangebyrank", "+pexpire", "+setnx", "+set", "+get", "+hset", "+hget",
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
