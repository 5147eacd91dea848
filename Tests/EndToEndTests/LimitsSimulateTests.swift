import Primitives
import TestSupport
import Testing
import Yams

@Suite("sluice limits simulate")
struct LimitsSimulateTests {
    private static func json(_ arguments: [String]) throws -> [String: Any] {
        let text = try LimitsCommandTests.output(["simulate", "--json"] + arguments)
        return try #require(try Yams.load(yaml: text) as? [String: Any], "\(text)")
    }

    private static func rows(_ answer: [String: Any], _ name: String) throws -> [[String: Any]] {
        try #require(answer[name] as? [[String: Any]])
    }

    @Test(
        "a node's own log, in either format, says of a limit what the node has done by it", arguments: ["text", "json"])
    func own(format: String) throws {
        try Scene.play { scene in
            let directory = try TemporaryDirectory()
            let log = "\(directory.path)/access.log"
            var file = File([try scene.backend()])
            file.gateway = "trustedProxies: [\"127.0.0.1/32\"], logFormat: \(format)"
            file.rateLimit =
                "policies: [{name: client, limit: 5, window: 1h}, {name: total, limit: 14, window: 1h, key: global}]"
            let node = try scene.node(file, ["--set", "gateway.accessLog=\(log)"])
            var refused = 0
            for client in 1...4 {
                refused += 6 - (try LimitsCommandTests.burst(6, "/a?b=\"c\"", to: node, as: "192.0.2.\(client)"))
            }
            #expect(refused == 10)
            #expect(try node.terminate() == 0)
            let answer = try Self.json(["--log", log, "-c", node.file])
            #expect(answer["lines"] as? Int == 24)
            #expect(answer["badLines"] as? Int == 0)
            #expect(answer["requests"] as? Int == 24)
            #expect(answer["refused"] as? Int == refused)
            let subjects = try Self.rows(answer, "subjects")
            #expect(subjects.first?["subject"] as? String == "global")
            #expect(subjects.first?["refused"] as? Int == 8)
            let client = try #require(subjects.first { $0["subject"] as? String == "ip:192.0.2.2" })
            #expect(client["requests"] as? Int == 6)
            #expect(client["refused"] as? Int == 1)
            #expect(client["firstRefusalLine"] as? Int == 12)
            // With another number, and by one that no file has.
            let more = try Self.json(["--log", log, "-c", node.file, "--policy", "client", "--limit", "2"])
            #expect(more["refused"] as? Int == 16)
            let trial = try Self.json(["--log", log, "--limit", "20", "--window", "1m", "--key", "global"])
            #expect(trial["refused"] as? Int == 4)
            #expect(try Self.json(["--log", log, "--limit", "6"])["refused"] as? Int == 0)
            let text = try LimitsCommandTests.output([
                "simulate", "--log", log, "--limit", "20", "--window", "1m", "--key", "global",
            ])
            #expect(text.contains("24 requests decided, 4 refused (16.7 %)"))
            #expect(text.contains("trial"))
        }
    }

    @Test("an nginx log, with lines that nobody can read: they are counted, and told of by number")
    func nginx() throws {
        let directory = try TemporaryDirectory()
        var lines = (0..<40).map { number in
            "203.0.113.\(number % 2) - - [01/Mar/2026:12:00:0\(number / 10) +0000] \"GET /x HTTP/1.1\" 200 12 \"-\" \"curl/8\""
        }
        lines.insert("nonsense", at: 3)
        lines.insert(String(repeating: "x", count: 100_000), at: 10)
        lines.append("203.0.113.1 - - [01/Mar/2026:12:00:00 +0000] \"\\x16\\x03\" 400 12")
        let log = try directory.write(lines.joined(separator: "\n"), to: "nginx.log")
        let result = try runSluice(["limits", "simulate", "--log", log, "--limit", "3"])
        #expect(result.exit == 0)
        #expect(result.errors.contains("\(log):4: "))
        #expect(result.errors.contains("\(log):11: longer than 65536 bytes"))
        #expect(result.output.contains("43 lines from 2026-03-01T12:00:00.000Z to 2026-03-01T12:00:03.000Z"))
        // Five a second and client, of which three pass.
        #expect(result.output.contains("40 requests decided, 16 refused (40.0 %)"))
        #expect(
            result.output.contains("2 cannot be read, 1 older than a line before them, 1 answered before any limit"))
        #expect(result.output.contains("2026-03-01T12:00:00.000Z"))
        let piped = try ChildProcess(
            "/bin/sh", ["-c", "'\(try SluiceNode.binary())' limits simulate --log - --limit 3 --json < '\(log)'"])
        #expect(try piped.waitForExit() == 0)
        #expect(piped.output.contains("\"refused\":16"))
    }

    @Test(
        "of a log that cannot be read nobody is told that nobody would have been refused",
        arguments: [
            ([0x1f, 0x8b, 0x08, 0x00], "is compressed: zcat "),
            ([0x28, 0xb5, 0x2f, 0xfd, 0x04], "is compressed: zstdcat "),
            ([0xff, 0xfe, 0x31, 0x00, 0x0a, 0x00], "no line can be read"),
            (Array("a word\n".utf8), "no line can be read"),
        ] as [([UInt8], String)])
    func unreadable(start: [UInt8], reason: String) throws {
        let directory = try TemporaryDirectory()
        let log = try directory.write(start, to: "access.log")
        for more in [[], ["--json"]] {
            let result = try runSluice(["limits", "simulate", "--log", log, "--limit", "1"] + more)
            #expect(result.exit == 1 && result.output == "", "\(result.output)")
            #expect(result.errors.contains("sluice: \(log)") && result.errors.contains(reason), "\(result.errors)")
        }
    }

    @Test("a file that begins with the mark of UTF-8 is read from its first line on")
    func byteOrderMark() throws {
        let directory = try TemporaryDirectory()
        let line = "203.0.113.1 - - [01/Mar/2026:12:00:00 +0000] \"GET /x HTTP/1.1\" 200 12\n"
        let log = try directory.write([0xef, 0xbb, 0xbf] + Array(line.utf8), to: "access.log")
        let answer = try Self.json(["--log", log, "--limit", "1"])
        #expect(answer["requests"] as? Int == 1)
        #expect(answer["badLines"] as? Int == 0)
    }

    @Test("what a log does not tell is left out, and said")
    func left() throws {
        let directory = try TemporaryDirectory()
        let backend = try RecordingBackend { _ in .close }
        defer { backend.stop() }
        let file = try directory.write(LimitsCommandTests.file(backend, "redis://127.0.0.1:1").yaml, to: "gateway.yaml")
        let log = try directory.write(
            "203.0.113.1 - - [01/Mar/2026:12:00:00 +0000] \"GET /auth HTTP/1.1\" 200 12\n", to: "access.log")
        let result = try runSluice(["limits", "simulate", "--log", log, "-c", file])
        #expect(result.exit == 0)
        #expect(result.errors.contains("policy files is left out: a log does not tell what runs at once"))
        #expect(result.output.contains("nobody would have been refused"))
        #expect(result.output.contains("total (shadow)"))
    }
}
