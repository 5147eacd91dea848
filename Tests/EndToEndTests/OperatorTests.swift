import Primitives
import TestSupport
import Testing

@Suite("Operators")
struct OperatorTests {
    private static let token = "an-operators-secret"

    private func cluster(_ scene: Scene, _ backends: [RecordingBackend]) throws -> ([SluiceNode], RedisServer) {
        let redis = try scene.redis()
        var file = File(backends)
        file.gateway = "heartbeat: 100ms, adminToken: \(Self.token)"
        file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
        let nodes = try ["a", "b"].map { try scene.node(file, ["--node-id", $0]) }
        try LimitTests.reached(nodes)
        return (nodes, redis)
    }

    private func run(_ node: SluiceNode, _ arguments: [String], token: String = token) throws -> (
        exit: Int32, output: String, errors: String
    ) {
        let admin = try #require(node.admin)
        return try runSluice(
            ["backends"] + arguments + ["--admin", "\(admin)"], environment: ["SLUICE_ADMIN_TOKEN": token])
    }

    private func texts(_ node: SluiceNode) throws -> Set<String> {
        Set(try (0..<6).map { _ in try node.ask().text })
    }

    @Test(
        "a drained backend gets no new requests from any node, its name stands in every list, and restarts keep it so")
    func drain() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let two = try scene.backend(named: "two")
            let (nodes, redis) = try cluster(scene, [one, two])
            let said = try run(nodes[0], ["drain", one.url])
            #expect(said.exit == 0)
            #expect(said.output.contains("main"))
            for node in nodes {
                try eventually("it is drained") { try texts(node) == ["two"] }
                let list = try run(node, [])
                #expect(list.output.contains("draining"))
                #expect(list.output.contains("drain by "))
                #expect(try node.admin("/api/backends").text.contains("\"operator\":{"))
            }
            #expect(try redis.client()("HGET", "sluice:operators", "main|\(one.url)").contains("drain"))

            // Redis loses everything, and a node restarts: the word holds.
            redis.kill()
            try redis.start()
            try eventually("it is in Redis again") {
                try redis.client()("HGET", "sluice:operators", "main|\(one.url)").contains("drain")
            }
            #expect(try nodes[0].terminate() == 0)
            var file = File([one, two])
            file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let reborn = try scene.node(file, ["--node-id", "a"])
            try eventually("the new node knows it") { try texts(reborn) == ["two"] }

            #expect(try run(nodes[1], ["undrain", one.url]).exit == 0)
            for node in [reborn, nodes[1]] {
                try eventually("both are used") { try texts(node) == ["one", "two"] }
            }
        }
    }

    @Test("a word survives the end of all nodes and of a Redis that keeps its data")
    func restarts() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let two = try scene.backend(named: "two")
            let (nodes, redis) = try cluster(scene, [one, two])
            #expect(try run(nodes[0], ["down", one.url]).exit == 0)
            for node in nodes { try eventually("it is held down") { try texts(node) == ["two"] } }
            #expect(try redis.client()("SAVE") == "+OK")
            for node in nodes { #expect(try node.terminate() == 0) }
            redis.kill()
            try redis.start()
            var file = File([one, two])
            file.rateLimit = "redisURL: \"redis://127.0.0.1:\(redis.port)\""
            let reborn = try scene.node(file, ["--node-id", "new"])
            try eventually("the new node knows it") { try texts(reborn) == ["two"] }
            #expect(try reborn.row(of: one.url).contains("\"word\":\"down\""))
        }
    }

    @Test("without an admin listener Redis itself is asked and told, by its URL or a node's configuration")
    func withoutListener() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let two = try scene.backend(named: "two")
            let (nodes, redis) = try cluster(scene, [one, two])
            let url = "redis://127.0.0.1:\(redis.port)"
            let directory = try TemporaryDirectory()
            let file = try directory.write(
                """
                gateway: {port: "127.0.0.1:0"}
                services:
                  - {name: main, path: /, instances: ["\(one.url)", "\(two.url)"]}
                rateLimit: {redisURL: "\(url)"}

                """, to: "gateway.yaml")
            func sluice(_ arguments: String...) throws -> (exit: Int32, output: String, errors: String) {
                try runSluice(["backends"] + arguments)
            }
            let drained = try sluice("drain", one.url, "--config", file)
            #expect(drained.exit == 0, "\(drained.errors)")
            #expect(drained.output == "\(one.url) of main: drain\n")
            for node in nodes { try eventually("it is drained") { try texts(node) == ["two"] } }
            for list in [try sluice("--config", file), try sluice("--redis", url, "--service", "main")] {
                #expect(list.exit == 0, "\(list.errors)")
                #expect(list.output.contains("draining"))
                #expect(list.output.contains("drain by "))
                #expect(list.output.contains("0/2 down"))
            }
            let members = try runSluice(["nodes", "--redis", url])
            #expect(members.exit == 0, "\(members.errors)")
            for node in nodes { #expect(members.output.contains("\(node.address)")) }
            // Somebody whose clock is far ahead has spoken; the later word counts all the same.
            try redis.client()(
                "HSET", "sluice:operators", "main|\(one.url)",
                "{\"at\":99999999999999,\"by\":\"x\",\"word\":\"down\"}")
            try redis.client()("PUBLISH", "sluice:operators", "changed")
            for node in nodes { try eventually("it is down") { try node.calls(one.url, "down") } }
            let back = try sluice("undrain", one.url, "--redis", url, "--service", "main")
            #expect(back.exit == 0, "\(back.errors)")
            for node in nodes { try eventually("both are used") { try texts(node) == ["one", "two"] } }
            #expect(try run(nodes[1], ["drain", one.url]).exit == 0)
            for node in nodes { try eventually("it is drained") { try texts(node) == ["two"] } }

            let unknown = try sluice("drain", "http://nowhere:1", "--config", file)
            #expect(unknown.exit == 1)
            #expect(unknown.errors.contains("No such backend here; there are \(one.url), \(two.url)"))
            let guessed = try sluice("undrain", "http://nowhere:1", "--redis", url, "--service", "main")
            #expect(guessed.exit == 0 && guessed.errors.contains("Redis knows nothing of this backend yet"))
            #expect(try sluice("drain", one.url, "--redis", url).errors.contains("give --service or --config"))
            #expect(try sluice("--redis", "http://x").exit != 0)
            redis.kill()
            let gone = try sluice("--redis", url, "--service", "main")
            #expect(gone.exit == 1)
            #expect(gone.errors.contains("127.0.0.1:\(redis.port)"))
        }
    }

    @Test("a backend is named by its URL, however that is spelt")
    func spelling() throws {
        try Scene.play { scene in
            let one = try scene.backend(named: "one")
            let two = try scene.backend(named: "two")
            let (nodes, redis) = try cluster(scene, [one, two])
            let field = "main|\(one.url)"
            func word() throws -> String { try redis.client()("HGET", "sluice:operators", field) }
            for spelt in ["\(one.url)/", one.url.replacing("http://", with: "HTTP://")] {
                let said = try run(nodes[0], ["drain", spelt])
                #expect(said.exit == 0 && said.output == "\(one.url) of main: drain\n", "\(said)")
                for node in nodes { try eventually("it is drained") { try texts(node) == ["two"] } }
                // Redis alone knows it by what was said of it.
                let back = try runSluice(
                    ["backends", "undrain", spelt, "--redis", "redis://127.0.0.1:\(redis.port)", "--service", "main"])
                #expect(back.exit == 0 && back.output == "\(one.url) of main: undrain\n", "\(back)")
                #expect(try word().contains("auto"))
                for node in nodes { try eventually("both are used") { try texts(node) == ["one", "two"] } }
            }
            #expect(try redis.client()("HLEN", "sluice:operators") == "1")
        }
    }

    @Test("held up and held down stand above probes, and a node without Redis obeys too")
    func held() throws {
        try Scene.play { scene in
            let dead = try scene.backend(named: "dead")
            let well = try scene.backend(named: "well")
            dead.stop()
            var file = File([dead, well])
            file.gateway = "adminToken: \(Self.token)"
            file.services[0].health = "interval: 50ms, warningInterval: 50ms, downInterval: 50ms, failures: 2"
            let node = try scene.node(file)
            try eventually("it is down") { try run(node, []).output.contains("down") }
            #expect(try run(node, ["up", dead.url]).exit == 0)
            #expect(try run(node, ["down", well.url, "--service", "main"]).exit == 0)
            let answer = try node.ask()
            #expect(answer.status == 502)
            #expect(try run(node, ["undrain", well.url]).exit == 0)
            #expect(try run(node, ["undrain", dead.url]).exit == 0)
            #expect(try node.ask().text == "well")
            let json = try run(node, ["--json"])
            #expect(json.output.hasPrefix("{\"backends\":["))
            #expect(json.output.contains("\"lastError\":"))
            #expect(json.output.contains("\"changes\":"))
        }
    }

    @Test("writes want the token, and what is not there is said")
    func refused() throws {
        try Scene.play { scene in
            let backend = try scene.backend()
            var file = File([backend])
            let open = try scene.node(file)
            let none = try run(open, ["drain", backend.url])
            #expect(none.exit == 1)
            #expect(none.errors.contains("401"))
            file.gateway = "adminToken: \(Self.token)"
            let node = try scene.node(file)
            for wrong in ["", "wrong", Self.token + "x", String(Self.token.dropLast())] {
                let answer = try run(node, ["drain", backend.url], token: wrong)
                #expect(answer.exit == 1)
                #expect(answer.errors.contains("401"))
            }
            #expect(
                try run(node, ["drain", "http://nowhere:1"]).errors
                    .contains("404 No such backend here; there are \(backend.url)\n"))
            #expect(
                try run(node, ["drain", backend.url, "--service", "other"]).errors
                    .contains("404 No service other here; there are main"))
            let quoted = try run(node, ["drain", "a\"b\\c", "--service", "x\"y\\"])
            #expect(quoted.errors.contains("404 No service x\"y\\ here"), "\(quoted.errors)")
            #expect(try node.ask().status == 200)
            let admin = try #require(node.admin)
            let nobody = try runSluice(["backends", "--admin", "127.0.0.1:1"])
            #expect(nobody.exit == 1)
            #expect(nobody.errors.contains("127.0.0.1:1"))
            let nodes = try runSluice(["nodes", "--admin", "http://\(admin)"])
            #expect(nodes.exit == 0)
            #expect(nodes.output.contains("NODE"))
            #expect(nodes.output.contains("\(node.address)"))
        }
    }
}
