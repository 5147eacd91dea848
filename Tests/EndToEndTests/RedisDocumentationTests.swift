import Primitives
import TestSupport
import Testing
import Yams

@Suite("What docs/redis.md says", .serialized)
struct RedisDocumentationTests {
    private static let text = readFile(sourceTree() + "/docs/redis.md")

    /// The scripts of the page, by the first words of the comment that each begins with.
    private static func scripts() -> [String: String] {
        var scripts: [String: String] = [:]
        for block in text.components("```sh\n").dropFirst() {
            let script = block.components("```")[0]
            let comment = script.prefix { $0 != "\n" }.dropFirst(2).prefix { $0 != ":" }
            scripts[String(comment)] = script
        }
        return scripts
    }

    private static func run(_ script: String, _ redis: RedisServer) throws -> [String] {
        let here = script.replacing("redis-cli", with: "redis-cli -p \(redis.port)")
        let process = try ChildProcess("/bin/sh", ["-e", "-c", here])
        #expect(try process.waitForExit() == 0, "\(script)\n\(process.errors)")
        return process.output.split(separator: "\n").map { $0.trimmingSpaces() }
    }

    @Test("each redis-cli command does what its command does")
    func commands() throws {
        let scripts = Self.scripts()
        #expect(scripts.count == 6)
        try LimitsCommandTests.play { redis, node, begin in
            let client = "203.0.113.7"
            try LimitsCommandTests.burst(3, "/auth", to: node, as: client)
            try LimitsCommandTests.burst(2, "/other", to: node, as: client)
            try LimitsCommandTests.burst(1, "/other", to: node, as: "203.0.113.8")
            try begin(client)

            let answer = try LimitsCommandTests.output(["get", client, "-c", node.file, "--json"])
            let object = try #require(try Yams.load(yaml: answer) as? [String: Any])
            let rows = try #require(object["policies"] as? [[String: Any]])
            func used(_ policy: String) -> String {
                "\(rows.first { $0["policy"] as? String == policy }?["used"] ?? "")"
            }

            let list = try Self.run(try #require(scripts["sluice limits list --redis"]), redis)
            #expect(list.contains("2 day:100/1d/buckets"))
            #expect(list.contains("1 files:2/concurrent"))
            let exact = try Self.run(try #require(scripts["sluice limits get"]), redis)
            #expect(exact.first == "3")
            #expect(exact.first == used("login"))
            #expect(exact.count == 3)
            #expect(try Self.run(try #require(scripts["in buckets"]), redis) == [used("day")])
            #expect(used("day") == "6")
            #expect(try Self.run(try #require(scripts["at once"]), redis) == [used("files")])
            #expect(used("files") == "1")
            let top = try Self.run(try #require(scripts["sluice limits top"]), redis)
            #expect(top.first == "7 rate_limit:total:50/1h:global")
            let reset = try Self.run(try #require(scripts["sluice limits reset"]), redis)
            #expect(reset == ["4"])
            #expect(try redis.client()("KEYS", "*:ip:\(client)") == "[]")
        }
    }

    @Test("the documented users may do what is asked of them, and no more")
    func users() throws {
        try Scene.play { scene in
            let redis = try scene.redis()
            for line in Self.text.split(separator: "\n") where line.hasPrefix("ACL SETUSER ") {
                let words = line.split(separator: " ").map { $0 == ">PASSWORD" ? ">secret" : String($0) }
                #expect(try redis.client().ask(words) == "+OK", "\(line)")
            }
            let file = LimitsCommandTests.file(
                try scene.backend(), "redis://sluice:secret@127.0.0.1:\(redis.port)")
            let node = try scene.node(file)
            try LimitTests.reached([node])
            try LimitsCommandTests.burst(3, "/auth", to: node, as: "192.0.2.1")
            let operatorsURL = "redis://operator:secret@127.0.0.1:\(redis.port)"
            #expect(try LimitsCommandTests.output(["--redis", operatorsURL]).contains("login"))
            #expect(try LimitsCommandTests.output(["top", "--redis", operatorsURL]).contains("ip:192.0.2.1"))
            #expect(try LimitsCommandTests.output(["get", "192.0.2.1", "--redis", operatorsURL]).contains("login"))
            #expect(try LimitsCommandTests.output(["reset", "192.0.2.1", "--redis", operatorsURL]).contains("deleted"))
            #expect(try redis.client().ask(["ACL", "DRYRUN", "operator", "UNLINK", "sluice:nodes"]) != "+OK")
        }
    }

    @Test("every key and channel that the sources name stands in the table")
    func complete() throws {
        let folder = sourceTree() + "/Sources"
        let find = try ChildProcess(
            "/bin/grep", ["-rhoE", "\"(sluice|rate_limit|\\{sluice\\}):[a-z_:]*", folder, "--include=*.swift"])
        #expect(try find.waitForExit() == 0)
        let table = Self.text.split(separator: "\n").filter { $0.hasPrefix("| `") }
        let names = Set(find.output.split(separator: "\n").map { $0.dropFirst().replacing("{sluice}", with: "sluice") })
        #expect(names.count > 10)
        for name in names where name != "sluice:" && name != "rate_limit:" {
            #expect(table.contains { $0.hasPrefix("| `\(name)") }, "\(name)")
        }
    }
}

extension String {
    fileprivate func components(_ separator: String) -> [String] {
        var parts: [String] = []
        var rest = self[...]
        while let found = rest.firstRange(of: separator) {
            parts.append(String(rest[..<found.lowerBound]))
            rest = rest[found.upperBound...]
        }
        return parts + [String(rest)]
    }
}
