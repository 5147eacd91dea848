import Primitives
import TestSupport
import Testing

@Suite("One configuration for all nodes")
struct RolloutTests {
    private static let token = "a-rollers-secret"

    private struct Cluster {
        let redis: RedisServer
        let nodes: [SluiceNode]
        let one: RecordingBackend
        let two: RecordingBackend
    }

    private func own(_ backend: RecordingBackend, _ redis: RedisServer) -> File {
        var file = File([backend])
        file.gateway = "heartbeat: 100ms, adminToken: \(Self.token)"
        file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
        return file
    }

    private func start(_ scene: Scene, _ own: File, _ name: String) throws -> SluiceNode {
        try scene.node(own, ["--node-id", name, "--set", "config.from=redis"])
    }

    private func cluster(_ scene: Scene, _ count: Int = 2) throws -> Cluster {
        let redis = try scene.redis()
        let one = try scene.backend(named: "one")
        let two = try scene.backend(named: "two")
        let nodes = try ["a", "b", "c"].prefix(count).map { try start(scene, own(one, redis), $0) }
        try LimitTests.reached(nodes)
        for node in nodes {
            try eventually("all know of all") {
                try node.admin("/api/nodes").text.split(separator: "\"configuration\":").count == count + 1
            }
        }
        return Cluster(redis: redis, nodes: nodes, one: one, two: two)
    }

    private func run(_ node: SluiceNode, _ arguments: [String]) throws -> (
        exit: Int32, output: String, errors: String
    ) {
        let admin = try #require(node.admin)
        return try runSluice(
            ["config"] + arguments + ["--admin", "\(admin)"], environment: ["SLUICE_ADMIN_TOKEN": Self.token])
    }

    /// What is pushed says nothing of listeners and Redis: those are each node's own.
    private func pushed(_ folder: TemporaryDirectory, _ url: String, more: String = "") throws -> String {
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
                try eventually("it counts") { try node.ask().text == "two" }
                try eventually("it is told") {
                    try node.admin("/api/nodes").text.split(separator: "\"configuration\":\"1\"").count == 3
                }
            }
            let later = try start(scene, own(cluster.one, cluster.redis), "c")
            try eventually("it counts for who joins later") { try later.ask().text == "two" }
            let second = try run(cluster.nodes[1], ["push", try pushed(folder, cluster.one.url)])
            #expect(second.exit == 0, "\(second.errors)")
            for node in cluster.nodes + [later] {
                try eventually("the second counts") { try node.ask().text == "one" }
            }
            let back = try run(cluster.nodes[0], ["rollback", "1"])
            #expect(back.exit == 0, "\(back.errors)")
            for node in cluster.nodes + [later] {
                try eventually("the first counts again") { try node.ask().text == "two" }
            }
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
        (
            ["ACL", "SETUSER", "default", "resetchannels", "&sluice:[^c]*"], ["push"],
            ["NOPERM", "&sluice:*"]
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
            let cluster = try cluster(scene, 1)
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
