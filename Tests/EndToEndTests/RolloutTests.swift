import Glibc
import LinuxIO
import Primitives
import TestSupport
import Testing

@Suite("One configuration for all nodes")
struct RolloutTests {
    static let token = "a-rollers-secret"

    struct Cluster {
        let redis: RedisServer
        let nodes: [SluiceNode]
        let one: RecordingBackend
        let two: RecordingBackend
    }

    func own(_ backend: RecordingBackend, _ redis: RedisServer) -> File {
        var file = File([backend])
        file.gateway = "heartbeat: 100ms, adminToken: \(Self.token)"
        file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
        return file
    }

    func start(_ scene: Scene, _ own: File, _ name: String) throws -> SluiceNode {
        try scene.node(own, ["--node-id", name, "--set", "config.from=redis"])
    }

    func cluster(_ scene: Scene, _ count: Int = 2, heartbeat: String = "100ms") throws -> Cluster {
        let redis = try scene.redis()
        let one = try scene.backend(named: "one")
        let two = try scene.backend(named: "two")
        var file = own(one, redis)
        file.gateway = file.gateway.replacing("100ms", with: heartbeat)
        let nodes = try ["a", "b", "c"].prefix(count).map { try start(scene, file, $0) }
        try LimitTests.reached(nodes)
        for node in nodes {
            try eventually("all know of all") {
                try node.admin("/api/nodes").text.split(separator: "\"configuration\":").count == count + 1
            }
        }
        return Cluster(redis: redis, nodes: nodes, one: one, two: two)
    }

    func run(_ node: SluiceNode, _ arguments: [String]) throws -> (
        exit: Int32, output: String, errors: String
    ) {
        let admin = try #require(node.admin)
        return try runSluice(
            ["config"] + arguments + ["--admin", "\(admin)"], environment: ["SLUICE_ADMIN_TOKEN": Self.token])
    }

    /// What is pushed says nothing of listeners and Redis: those are each node's own.
    func pushed(_ folder: TemporaryDirectory, _ url: String, more: String = "") throws -> String {
        let text = "services:\n  - {name: main, path: /, instances: [\"\(url)\"], health: {active: false}\(more)}\n"
        return try folder.write(text, to: "pushed.yaml")
    }

    @Test("what is pushed to one node counts on all, is rolled back on all, and a node that joins later has it too")
    func rollsOut() throws {
        try Scene.play { scene in
            let cluster = try cluster(scene)
            let folder = try TemporaryDirectory()
            let first = try run(cluster.nodes[0], ["push", try pushed(folder, cluster.two.url)])
            #expect(first.exit == 0, "\(first.errors)")
            #expect(first.output.contains("version 1 is in force on a, b"))
            for node in cluster.nodes {
                // The command has waited for it.
                #expect(try node.ask().text == "two")
                try eventually("it is told") {
                    try node.admin("/api/nodes").text.split(separator: "\"configuration\":\"1\"").count == 3
                }
            }
            let later = try start(scene, own(cluster.one, cluster.redis), "c")
            #expect(try later.ask().text == "two", "it counts from the first request on for who joins later")
            try eventually("it is asked for its vote") {
                try cluster.nodes[1].admin("/api/nodes").text.split(separator: "\"id\":").count == 4
            }
            let second = try run(cluster.nodes[1], ["push", try pushed(folder, cluster.one.url)])
            #expect(second.exit == 0, "\(second.errors)")
            for node in cluster.nodes + [later] { #expect(try node.ask().text == "one") }
            let back = try run(cluster.nodes[0], ["rollback", "1"])
            #expect(back.exit == 0, "\(back.errors)")
            for node in cluster.nodes + [later] { #expect(try node.ask().text == "two") }
            try eventually("the history knows") {
                let history = try run(cluster.nodes[0], ["history"]).output
                return history.contains("rollback to 1") && history.contains("a,b,c")
            }
            #expect(try cluster.redis.client()("GET", "sluice:config:current").contains("3"))
            // Without Redis all go on with what they have.
            cluster.redis.kill()
            for node in cluster.nodes { #expect(try node.ask().text == "two") }
        }
    }

    @Test("when the command says that a version is in force, it is, on every node and every worker")
    func inForce() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let (one, two) = (try scene.backend(named: "one"), try scene.backend(named: "two"))
            var file = own(one, redis)
            file.workers = "3"
            let nodes = try ["a", "b", "c"].map { try start(scene, file, $0) }
            try LimitTests.reached(nodes)
            let folder = try TemporaryDirectory()
            for turn in 0..<8 {
                let wanted = turn % 2 == 0 ? two : one
                let push = try run(nodes[turn % 3], ["push", try pushed(folder, wanted.url)])
                #expect(push.exit == 0, "\(push.errors)")
                for node in nodes {
                    for _ in 0..<3 { #expect(try node.ask().text == (turn % 2 == 0 ? "two" : "one")) }
                }
            }
        }
    }

    @Test("a node that has agreed and does not say that it has switched is named")
    func silent() throws {
        try Scene.play { scene in
            let cluster = try cluster(scene)
            let redis = try cluster.redis.client()
            // Somebody who lives for long without a sign, votes, and is not heard of again.
            let info =
                #"{"address":"127.0.0.9:1","boot":"00000000000000aa","follows":true,"heartbeatMilliseconds":60000}"#
            _ = try redis("HSET", "sluice:nodes:info", "ghost", info)
            _ = try redis("ZADD", "sluice:nodes", "\(SystemClock.wallMicroseconds())", "ghost")
            for node in cluster.nodes {
                try eventually("it is known") { try node.admin("/api/nodes").text.contains("ghost") }
            }
            _ = try redis("HSET", "sluice:config:votes:1", "ghost", "ok")
            let folder = try TemporaryDirectory()
            let push = try run(cluster.nodes[0], ["push", try pushed(folder, cluster.two.url)])
            #expect(push.exit == 1)
            #expect(push.output == "version 1 is in force on a, b\n")
            #expect(push.errors.contains("ghost: has not said in 10s that it has switched"))
            for node in cluster.nodes { #expect(try node.ask().text == "two") }
        }
    }

    @Test("no process of a node that follows answers by the node's own file, after an upgrade or a crash")
    func processes() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let (one, two) = (try scene.backend(named: "one"), try scene.backend(named: "two"))
            let node = try scene.node(
                own(one, redis), ["--node-id", "a", "--set", "config.from=redis", "--supervise"])
            try LimitTests.reached([node])
            let folder = try TemporaryDirectory()
            #expect(try run(node, ["push", try pushed(folder, two.url)]).exit == 0)
            let clients = Newcomers(node.address)
            try clients.more("two")
            for _ in 0..<3 {
                let pid = try node.number("pid")
                let admin = try #require(node.admin)
                #expect(try runSluice(["upgrade", "--admin", "\(admin)", "--token", Self.token]).exit == 0)
                try eventually("the new one is asked") { try node.number("pid") != pid }
                try clients.more("two")
            }
            for crash in 1...2 {
                _ = kill(pid_t(try node.number("pid")), SIGKILL)
                try eventually("another is there") { try node.number("crashes") == crash }
                try clients.more("two")
            }
            let answers = clients.stop().answers
            #expect(answers["one"] == nil)
            #expect(try node.admin("/api/config").text.contains("\"hash\":"))
            // Without Redis there is the file, and a warning.
            redis.kill()
            let alone = try start(scene, own(one, redis), "b")
            #expect(try alone.ask().text == "one")
            #expect(alone.log.contains("this node begins with its own file"))
        }
    }

    @Test("who begins to follow by a reload has the version in force at once")
    func joins() throws {
        try Scene.play { scene in
            let cluster = try cluster(scene)
            let folder = try TemporaryDirectory()
            #expect(try run(cluster.nodes[0], ["push", try pushed(folder, cluster.two.url)]).exit == 0)
            let file = own(cluster.one, cluster.redis)
            let node = try scene.node(file, ["--node-id", "later"])
            #expect(try node.ask().text == "one")
            try node.reload(file.yaml + "config: {from: redis}\n")
            #expect(try node.ask().text == "two")
        }
    }

    @Test("the history says which versions were refused and why, and a version that never was is no proposal")
    func refusalsAreKept() throws {
        try Scene.play { scene in
            let cluster = try cluster(scene)
            let folder = try TemporaryDirectory()
            #expect(try run(cluster.nodes[0], ["push", try pushed(folder, cluster.two.url)]).exit == 0)
            let wrong = try folder.write("services: [a]\n", to: "wrong.yaml")
            #expect(try run(cluster.nodes[0], ["push", wrong]).exit == 1)
            for node in cluster.nodes {
                try eventually("the history says so") {
                    let lines = try run(node, ["history"]).output.split(separator: "\n")
                    return lines.count == 3 && lines[1].hasPrefix("2 ")
                        && lines[1].contains("refused: ") && lines[1].contains("version 2:1:12: services[0]")
                        && lines[2].hasPrefix("1 ") && !lines[2].contains("refused")
                }
            }
            let back = try run(cluster.nodes[0], ["rollback", "999"])
            #expect(back.exit == 1)
            #expect(
                back.errors == "there is no version 999\nsluice: nothing was proposed: all nodes stay with theirs\n")
        }
    }

    @Test("what one node cannot do counts on none, and the command says who and why")
    func refused() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let one = try scene.backend(named: "one")
            let two = try scene.backend(named: "two")
            let first = try start(scene, own(one, redis), "a")
            // This one's command line contradicts what will be pushed.
            let second = try scene.node(
                own(one, redis),
                ["--node-id", "b", "--set", "config.from=redis", "--set", "services.main.pool.idle=9"])
            try LimitTests.reached([first, second])
            for node in [first, second] {
                try eventually("both know of both") {
                    try node.admin("/api/nodes").text.split(separator: "\"configuration\":").count == 3
                }
            }
            let folder = try TemporaryDirectory()
            let push = try run(first, ["push", try pushed(folder, two.url, more: ", pool: {connections: 3}")])
            #expect(push.exit == 1)
            #expect(push.errors.contains("b: "))
            #expect(push.errors.contains("more than connections, which is 3"))
            let broken = try run(first, ["push", try folder.write("services: [a]\n", to: "broken.yaml")])
            #expect(broken.exit == 1)
            // Whoever was asked first has said so.
            #expect(broken.errors.contains(": version 2:1:12: services[0]: it must be a mapping"))
            for node in [first, second] { #expect(try node.ask().text == "one") }
            #expect(try redis.client()("EXISTS", "sluice:config:current").contains("0"))
            let fine = try run(second, ["push", try pushed(folder, two.url)])
            #expect(fine.exit == 0, "\(fine.errors)")
            for node in [first, second] { try eventually("it counts") { try node.ask().text == "two" } }
        }
    }

    @Test("a node without a file of keys refuses what needs it, before anybody switches")
    func keysAreMissing() throws {
        try Scene.play { scene in
            let cluster = try cluster(scene)
            let folder = try TemporaryDirectory()
            let text = "services:\n  - {name: main, path: /, instances: [\"\(cluster.two.url)\"]}\n"
            let auth = "auth: {jwt: [{algorithms: [HS256], jwksFile: \"\(folder.path)/none.json\"}]}\n"
            let push = try run(cluster.nodes[0], ["push", try folder.write(text + auth, to: "pushed.yaml")])
            #expect(push.exit == 1)
            #expect(push.errors.contains("none.json cannot be read"))
            #expect(try cluster.redis.client()("EXISTS", "sluice:config:current").contains("0"))
        }
    }

    @Test("when Redis has lost its data the next version is a new one, and counts")
    func dataLoss() throws {
        try Scene.play { scene in
            let cluster = try cluster(scene)
            let folder = try TemporaryDirectory()
            #expect(try run(cluster.nodes[0], ["push", try pushed(folder, cluster.two.url)]).exit == 0)
            for node in cluster.nodes { try eventually("it counts") { try node.ask().text == "two" } }
            let redis = try cluster.redis.client()
            let (stored, history) = (
                try redis("HGET", "sluice:config:versions", "1"), try redis("HGET", "sluice:config:history", "1")
            )
            _ = try redis("FLUSHALL")
            let push = try run(cluster.nodes[1], ["push", try pushed(folder, cluster.one.url)])
            #expect(push.output.contains("version 2 is in force"), "\(push.errors)")
            for node in cluster.nodes { try eventually("the new one counts") { try node.ask().text == "one" } }
            // Somebody who knew nothing of it has given the same number to another text.
            for (key, value) in [("versions", stored), ("history", history)] {
                let json = value.dropFirst().dropLast().replacing("\"version\":1", with: "\"version\":2")
                _ = try redis("HSET", "sluice:config:\(key)", "2", String(json))
            }
            for node in cluster.nodes { try eventually("the other text counts") { try node.ask().text == "two" } }
        }
    }

    @Test("who has gone back to its own file does not come back to what it has followed once")
    func noReturn() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let (one, two) = (try scene.backend(named: "one"), try scene.backend(named: "two"))
            let file = own(one, redis)
            let own = file.yaml
            let node = try scene.node(file)
            try LimitTests.reached([node])
            try node.reload(own + "config: {from: redis}\n")
            let folder = try TemporaryDirectory()
            try eventually("it follows") {
                try run(node, ["push", try pushed(folder, two.url)]).exit == 0
            }
            try eventually("it counts") { try node.ask().text == "two" }
            try node.reload(own)
            #expect(try node.ask().text == "one")
            _ = try redis.client()("FLUSHALL")
            try node.reload(own + "config: {from: redis}\n")
            #expect(try node.ask().text == "one")
        }
    }

    @Test("a proposal that fails leaves another node's alone")
    func foreignLock() throws {
        try Scene.play { scene in
            let cluster = try cluster(scene)
            let redis = try cluster.redis.client()
            _ = try redis("SET", "sluice:config:proposal", "99")
            _ = try redis("SET", "sluice:config:last", "no number")
            let folder = try TemporaryDirectory()
            let push = try run(cluster.nodes[0], ["push", try pushed(folder, cluster.two.url)])
            #expect(push.exit == 1)
            #expect(push.errors.contains("Redis refuses INCR sluice:config:last: ERR value is not an integer"))
            try eventually("it is told") { cluster.nodes[0].log.contains("a configuration is refused") }
            #expect(try redis("GET", "sluice:config:proposal").contains("99"))
            _ = try redis("DEL", "sluice:config:proposal", "sluice:config:last")
            #expect(try run(cluster.nodes[0], ["push", try pushed(folder, cluster.two.url)]).exit == 0)
            #expect(try redis("EXISTS", "sluice:config:proposal").contains("0"))
        }
    }

    /// What is done to Redis, the command, and what it says then.
    private static let refusals: [(redis: [String], command: [String], said: [String])] = [
        (
            ["ACL", "SETUSER", "default", "-incr"], ["push"],
            ["Redis refuses INCR sluice:config:last: NOPERM", "ACL SETUSER … +incr,"]
        ),
        (
            ["ACL", "SETUSER", "default", "resetkeys", "~rate_limit:*", "~sluice:nodes*", "~sluice:[^c]*"], ["push"],
            ["NOPERM", "~sluice:config:"]
        ),
        (["CONFIG", "SET", "maxmemory", "1"], ["push"], ["INCR sluice:config:last: OOM", "raise maxmemory"]),
        (
            ["LPUSH", "sluice:config:last", "x"], ["push"],
            ["INCR sluice:config:last: WRONGTYPE", "see what sluice:config:last holds"]
        ),
        (
            ["SET", "sluice:config:versions", "x"], ["push"],
            ["HSET sluice:config:versions, HSET sluice:config:history", "WRONGTYPE"]
        ),
        (["SET", "sluice:config:versions", "x"], ["rollback", "1"], ["HGET sluice:config:versions: WRONGTYPE"]),
        (["SET", "sluice:config:history", "x"], ["history"], ["HVALS sluice:config:history: WRONGTYPE"]),
    ]

    @Test("where Redis refuses, the commands say so in its words, and what to do", arguments: refusals.indices)
    func refusedByRedis(index: Int) throws {
        let row = Self.refusals[index]
        try Scene.play { scene in
            // A heartbeat that is refused before would be all that is told.
            let cluster = try cluster(scene, 1, heartbeat: "5s")
            let redis = try cluster.redis.client()
            #expect(try !redis.ask(row.redis).hasPrefix("-"))
            let folder = try TemporaryDirectory()
            let file = row.command == ["push"] ? [try pushed(folder, cluster.two.url)] : []
            var said = (exit: Int32(0), output: "", errors: "")
            // The history is read every two seconds; a user who may read nothing is connected to anew all the time.
            try eventually("it says so") {
                said = try run(cluster.nodes[0], row.command + file)
                return said.exit == 1 && row.said.allSatisfy { said.errors.contains($0) }
            }
            #expect(!said.errors.contains("does not answer"), "\(said.errors)")
        }
    }

    @Test(
        "without the right to publish, or to hear too, a push is in force when it says so all the same",
        arguments: ["-publish", "resetchannels"])
    func withoutChannels(rule: String) throws {
        try Scene.play { scene in
            let cluster = try cluster(scene)
            let redis = try cluster.redis.client()
            #expect(try !redis.ask(["ACL", "SETUSER", "default", rule]).hasPrefix("-"))
            let folder = try TemporaryDirectory()
            let push = try run(cluster.nodes[0], ["push", try pushed(folder, cluster.two.url)])
            #expect(push.exit == 0, "\(push.errors)")
            for node in cluster.nodes { #expect(try node.ask().text == "two") }
        }
    }

    @Test("a node that follows nobody says so, and a file that follows needs a Redis")
    func alone() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            var file = File([one])
            file.gateway = "adminToken: \(Self.token)"
            let node = try scene.node(file)
            let folder = try TemporaryDirectory()
            let push = try run(node, ["push", try pushed(folder, one.url)])
            #expect(push.exit == 1)
            #expect(push.errors.contains("409"))
            let path = try folder.write(file.yaml, to: "gateway.yaml")
            let check = try runSluice(["check", "--config", path, "--set", "config.from=redis"])
            #expect(check.exit == 1)
            #expect(check.errors.contains("there is no Redis to read it from: set rateLimit.redisURL"))
        }
    }
}
