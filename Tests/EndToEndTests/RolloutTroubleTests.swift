import Glibc
import LinuxIO
import Primitives
import TestSupport
import Testing

/// What gets in the way of a rollout between its beginning and its end.
@Suite("A rollout in trouble", .timeLimit(.minutes(3)))
struct RolloutTroubleTests {
    private let rollouts = RolloutTests()

    /// Somebody who lives for long without a sign, and whose vote is awaited.
    private func addGhost(_ redis: RedisTestClient, knownTo nodes: [SluiceNode]) throws {
        let info = #"{"address":"127.0.0.9:1","boot":"00000000000000aa","follows":true,"heartbeatMilliseconds":60000}"#
        _ = try redis("HSET", "sluice:nodes:info", "ghost", info)
        _ = try redis("ZADD", "sluice:nodes", "\(SystemClock.wallMicroseconds())", "ghost")
        for node in nodes { try eventually("it is known") { try node.admin("/api/nodes").text.contains("ghost") } }
    }

    /// Begins to push, and waits until the nodes themselves have voted.
    private func push(
        _ file: String, to node: SluiceNode, voters: [String], _ redis: RedisTestClient
    ) throws -> ChildProcess {
        let admin = try #require(node.admin)
        let command = try ChildProcess(
            try SluiceNode.binary(), ["config", "push", file, "--admin", "\(admin)"],
            environment: ["SLUICE_ADMIN_TOKEN": RolloutTests.token])
        for voter in voters {
            try eventually("\(voter) has voted") { try redis("HGET", "sluice:config:votes:1", voter) == "'ok'" }
        }
        return command
    }

    /// Two nodes that have voted for a version, which is not in force since somebody else has not.
    private func awaitingGhost(
        _ body: (RolloutTests.Cluster, RedisTestClient, ChildProcess) throws -> Void
    ) throws {
        try Scene.play { scene in
            let cluster = try rollouts.cluster(scene)
            let redis = try cluster.redis.client()
            try addGhost(redis, knownTo: cluster.nodes)
            let folder = try TemporaryDirectory()
            let command = try push(
                try rollouts.pushed(folder, cluster.two.url), to: cluster.nodes[0], voters: ["a", "b"], redis)
            try body(cluster, redis, command)
        }
    }

    private func rollout(_ node: SluiceNode) throws -> String { try node.admin("/api/config/rollout").text }

    /// Two nodes, of which the first has written that all agree, to a Redis that does not answer any more.
    private func withoutAnswer(
        _ body: (Scene, RolloutTests.Cluster, RedisTestClient, ChildProcess) throws -> Void
    ) throws {
        try Scene.play { scene in
            let server = try scene.redis()
            let redis = try server.client()
            let (one, two) = (try scene.backend(named: "one"), try scene.backend(named: "two"))
            var file = rollouts.own(one, server)
            // A heartbeat is written too, and would wait in front of what this is about.
            file.gateway = file.gateway.replacing("100ms", with: "5s")
            let nodes = try ["a", "b"].map { try rollouts.start(scene, file, $0) }
            try LimitTests.reached(nodes)
            try addGhost(redis, knownTo: nodes)
            for node in nodes {
                try eventually("all know of all") {
                    try node.admin("/api/nodes").text.split(separator: "\"configuration\":").count == 3
                }
            }
            let cluster = RolloutTests.Cluster(redis: server, nodes: nodes, one: one, two: two)
            let folder = try TemporaryDirectory()
            let command = try push(
                try rollouts.pushed(folder, two.url), to: nodes[0], voters: ["a", "b"], redis)
            // The last vote comes, and from that moment on Redis takes no writes, and does not answer them.
            _ = try redis("MULTI")
            _ = try redis("HSET", "sluice:config:votes:1", "ghost", "ok")
            _ = try redis("PUBLISH", "sluice:config", "voted 1")
            _ = try redis("CLIENT", "PAUSE", "60000", "WRITE")
            #expect(try redis("EXEC").hasSuffix("+OK]"))
            try eventually("nobody knows") { try rollout(nodes[0]).contains("\"state\":\"unknown\"") }
            #expect(try rollout(nodes[0]).contains("may or may not be in force"))
            #expect(command.exit == nil, "what is not known yet may be known in time")
            try body(scene, cluster, redis, command)
            withExtendedLifetime(folder) {}
        }
    }

    private func takeIt(_ redis: RedisTestClient) throws {
        _ = try redis("HSET", "sluice:config:adopted", "ghost", "1")
        _ = try redis("SET", "sluice:config:current", "1")
    }

    @Test("a version whose last write got no answer is in force where Redis has taken it, and only that is said")
    func taken() throws {
        try withoutAnswer { _, cluster, redis, command in
            _ = try redis("CLIENT", "UNPAUSE")
            try takeIt(redis)
            #expect(try command.waitForExit() == 0)
            #expect(command.output == "version 1 is in force on a, b, ghost\n", "\(command.output)")
            #expect(command.errors == "", "\(command.errors)")
            for node in cluster.nodes { #expect(try node.ask().text == "two") }
            #expect(try rollout(cluster.nodes[0]).contains("\"state\":\"switched\""))
            #expect(!cluster.nodes[0].log.contains("is refused"))
        }
    }

    @Test("where Redis has not taken it, it is refused, and should it come after all, that is corrected")
    func notTaken() throws {
        try withoutAnswer { _, cluster, redis, command in
            _ = try redis("CLIENT", "UNPAUSE")
            #expect(try command.waitForExit() == 1)
            #expect(
                command.errors == """
                    Redis did not answer when all had agreed, and has not taken it
                    sluice: version 1 is refused: all nodes stay with theirs

                    """, "\(command.errors)")
            #expect(command.output == "")
            for node in cluster.nodes { #expect(try node.ask().text == "one") }
            try eventually("the history says so") {
                try rollouts.run(cluster.nodes[1], ["history"]).output.contains("refused: Redis did not answer")
            }
            try takeIt(redis)
            try eventually("it is corrected") {
                try rollout(cluster.nodes[0]).contains("\"state\":\"switched\"")
            }
            for node in cluster.nodes { try eventually("it counts") { try node.ask().text == "two" } }
            try eventually("the history too") {
                try !rollouts.run(cluster.nodes[1], ["history"]).output.contains("refused")
            }
        }
    }

    @Test("the history has the reason also where Redis did not answer when there was one")
    func reasonIsKept() throws {
        try awaitingGhost { cluster, _, command in
            cluster.redis.pause()
            let code = try command.waitForExit()
            cluster.redis.resume()
            #expect(code == 1)
            #expect(command.errors.contains("Redis does not answer"), "\(command.errors)")
            for node in cluster.nodes {
                try eventually("the history says why") {
                    try rollouts.run(node, ["history"]).output.contains("refused: Redis does not answer")
                }
            }
        }
    }

    @Test("a node that says goodbye is waited for no more, whether it has voted or not", arguments: [true, false])
    func goodbye(hasVoted: Bool) throws {
        try awaitingGhost { cluster, redis, command in
            if hasVoted { _ = try redis("HSET", "sluice:config:votes:1", "ghost", "ok") }
            _ = try redis("ZREM", "sluice:nodes", "ghost")
            _ = try redis("HDEL", "sluice:nodes:info", "ghost")
            #expect(try command.waitForExit() == 0, "\(command.errors)")
            #expect(command.output == "version 1 is in force on a, b\n", "\(command.output)")
            for node in cluster.nodes { #expect(try node.ask().text == "two") }
        }
    }

    @Test("a node takes part for as long as it serves everybody: it switches during drain.delay")
    func draining() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let (one, two) = (try scene.backend(named: "one"), try scene.backend(named: "two"))
            var file = rollouts.own(one, redis)
            let first = try rollouts.start(scene, file, "a")
            file.gateway += ", drain: {delay: 120s}"
            let second = try rollouts.start(scene, file, "b")
            try LimitTests.reached([first, second])
            try eventually("both are known") {
                try first.admin("/api/nodes").text.split(separator: "\"configuration\":").count == 3
            }
            second.process.signal(SIGTERM)
            try eventually("it drains") { try second.admin("/readyz").status == 503 }
            let folder = try TemporaryDirectory()
            let push = try rollouts.run(first, ["push", try rollouts.pushed(folder, two.url)])
            #expect(push.exit == 0, "\(push.errors)")
            #expect(push.output == "version 1 is in force on a, b\n")
            #expect(try second.ask().text == "two")
            #expect(try second.admin("/readyz").status == 503)
            second.process.signal(SIGTERM)
            #expect(try second.process.waitForExit() == 0)
            let later = try rollouts.run(first, ["push", try rollouts.pushed(folder, one.url)])
            #expect(later.exit == 0, "\(later.errors)")
            #expect(later.output == "version 2 is in force on a\n")
        }
    }

    @Test("a node that closes its connections takes no other configuration, and its log says why")
    func ending() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            var file = File([one])
            file.gateway = "drain: {delay: 0s, timeout: 30s}"
            let node = try scene.node(file)
            // Half a request: it is not over when the node ends.
            let wire = try node.connect()
            try wire.send("GET / HTTP/1.1\r\n")
            node.process.signal(SIGTERM)
            try eventually("it drains") { node.log.contains("draining") }
            let status = try node.reload(file.yaml)
            #expect(status.contains("the node is about to end"), "\(status)")
            #expect(node.log.contains("the node is about to end"), "\(node.log)")
            try wire.send("Host: test\r\n\r\n")
            #expect(try wire.readResponse().text == "one")
        }
    }

    @Test("the process that another has replaced has no voice in the name of both")
    func replaced() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            let (one, two) = (try scene.backend(named: "one"), try scene.backend(named: "two"))
            let file = rollouts.own(one, redis)
            let first = try rollouts.start(scene, file, "a")
            let second = try scene.node(file, ["--node-id", "b", "--set", "config.from=redis", "--supervise"])
            try LimitTests.reached([first, second])
            try eventually("both are known") {
                try first.admin("/api/nodes").text.split(separator: "\"configuration\":").count == 3
            }
            // Half a request keeps the old process.
            let wire = try second.connect()
            try wire.send("GET / HTTP/1.1\r\n")
            let admin = try #require(second.admin)
            let pid = try second.number("pid")
            #expect(try runSluice(["upgrade", "--admin", "\(admin)", "--token", RolloutTests.token]).exit == 0)
            try eventually("the new one is asked") { try second.number("pid") != pid }
            try LimitTests.reached([second])
            let folder = try TemporaryDirectory()
            for (turn, url) in [two.url, one.url, two.url].enumerated() {
                let push = try rollouts.run(first, ["push", try rollouts.pushed(folder, url)])
                #expect(push.exit == 0, "\(push.errors)")
                #expect(push.output == "version \(turn + 1) is in force on a, b\n")
            }
            #expect(!second.log.contains("about to end"))
            try wire.send("Host: test\r\n\r\n")
            #expect(try wire.readResponse().value("Connection") == "close")
        }
    }

    @Test("a configuration has the same names wherever it is shown")
    func names() throws {
        try Scene.play { scene in
            let cluster = try rollouts.cluster(scene)
            let folder = try TemporaryDirectory()
            #expect(
                try rollouts.run(cluster.nodes[0], ["push", try rollouts.pushed(folder, cluster.two.url)]).exit == 0)
            for node in cluster.nodes {
                let nodes = try node.admin("/api/nodes").text
                let start = try #require(nodes.firstRange(of: "\"shared\":\"")?.upperBound)
                let shared = nodes[start...].prefix { $0 != "\"" }
                #expect(shared.count == 16)
                try eventually("all show the same") {
                    let (nodes, overview) = (try node.admin("/api/nodes").text, try node.admin("/api/overview").text)
                    func count(_ text: String, _ what: String) -> Int { text.ranges(of: what).count }
                    return count(nodes, "\"configuration\":\"1\"") == 2 && count(nodes, "\"shared\":\"\(shared)\"") == 2
                        && count(overview, "\"configuration\":\"1\"") == 3
                        && count(overview, "\"shared\":\"\(shared)\"") == 3
                }
                #expect(
                    try node.admin("/metrics").text.contains(
                        "sluice_config_info{version=\"\(shared)\",configuration=\"1\"} 1"))
            }
        }
    }
}
