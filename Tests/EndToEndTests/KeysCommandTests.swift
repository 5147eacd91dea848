import TestSupport
import Testing

@Suite("sluice keys", .serialized)
struct KeysCommandTests {
    @Test(
        "a key that the gateway could not use, or would read otherwise, is not made",
        arguments: [
            (["--tier", "x y", "k"], "--tier: `x y` is not a name"),
            (["--tier", "", "k"], "--tier: `` is not a name"),
            (["--scope", "a b", "k"], "--scope: `a b` is no scope"),
            (["--scope", "a", "--scope", "", "k"], "--scope: `` is no scope"),
            ((0..<17).flatMap { ["--scope", "s\($0)"] } + ["k"], "--scope: 17 of them; at most 16"),
            ([""], "the name: `` is not a name"), (["nightly report"], "the name: `nightly report` is not a name"),
            (["a\u{1b}[2J"], "the name: "), (["--user", "", "k"], ""), (["--org", "a\nb", "k"], ""),
        ])
    func refused(arguments: [String], reason: String) throws {
        for place in [["--file"], ["--redis", "redis://127.0.0.1:1"]] {
            let result = try runSluice(["keys", "add"] + place + arguments)
            #expect(result.exit != 0 && result.output == "", "\(place): \(result.output)")
            #expect(result.errors.contains(reason) && !result.errors.contains("reached"), "\(result.errors)")
        }
    }

    @Test("what a key may name in Redis and not in the file is told before it is printed")
    func identities() throws {
        for option in ["--user", "--org"] {
            let result = try runSluice(["keys", "add", "--file", option, "Zo\u{eb}", "k"])
            #expect(result.exit != 0 && result.output == "")
            #expect(result.errors.contains("\(option): `Zo\u{eb}` cannot stand in a header"), "\(result.errors)")
        }
    }

    @Test(
        "the printed entry is read as what was given",
        arguments: ["42", "a$$b", "a${HOME}", "a$b", "\"q\"", "back\\slash", "#{[", "'", "%2a:*&"])
    func printed(user: String) throws {
        try Scene.play { scene in
            let made = try runSluice([
                "keys", "add", "--file", "--user", user, "--org", user, "--tier", "gold", "--scope", "$a", "k",
            ])
            #expect(made.exit == 0, "\(made.errors)")
            let lines = made.output.split(separator: "\n").map(String.init)
            try #require(lines.count == 2 && lines[0].hasPrefix("- {name: \"k\""))
            let backend = try scene.backend()
            var file = File([backend], "scopes: [\"$$a\"]")
            file.auth =
                "default: required, apiKeys: {keys: [\(lines[0].dropFirst(2))]}, forward: {user: X-User, org: X-Org}"
            let node = try scene.node(file)
            #expect(try node.ask(fields: "X-API-Key: \(lines[1])\r\n").status == 200)
            let request = try #require(backend.requests.last)
            #expect(request.value("X-User") == user && request.value("X-Org") == user)
        }
    }

    @Test(
        "a right that is missing is told as that, with the rule that grants it",
        arguments: ["multi", "hset", "publish"])
    func rights(command: String) throws {
        let redis = try RedisServer()
        #expect(try redis.client()("ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "+@all", "-\(command)") == "+OK")
        let said = try runSluice(["keys", "add", "--redis", "redis://u:pw@127.0.0.1:\(redis.port)", "k"])
        #expect(said.exit == 1 && said.output == "")
        #expect(said.errors.hasPrefix("sluice: Redis refuses: "), "\(said.errors)")
        #expect(said.errors.contains("ACL SETUSER u +\(command) grants it"), "\(said.errors)")
        #expect(!said.errors.contains("reached"))
    }

    @Test("what is no Redis URL is told by the option that it was given to")
    func url() throws {
        for command in [["list"], ["revoke", "a"], ["add", "a"]] {
            let result = try runSluice(["keys"] + command + ["--redis", "http://x"])
            #expect(result.exit == 1 && result.output == "")
            #expect(result.errors.hasPrefix("sluice: --redis: not a Redis URL; write redis://"), "\(result.errors)")
        }
    }
}
