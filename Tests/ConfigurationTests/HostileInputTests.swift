import Foundation
import Primitives
import Testing

@testable import Configuration

@Suite("Hostile files")
struct HostileInputTests {
    private static func repeated(_ text: String, _ count: Int) -> String { String(repeating: text, count: count) }

    /// Aliases of aliases: ten copies a level.
    private static func bomb(levels: Int, last: String) -> String {
        var lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        for level in 1...levels {
            let copies = [String](repeating: "*a\(level - 1)", count: 10).joined(separator: ", ")
            lines.append("a\(level): &a\(level) [\(copies)]")
        }
        lines.append(last)
        return lines.joined(separator: "\n")
    }

    @Test("many aliases are refused before YAML follows them")
    func aliasBomb() {
        let expected =
            "f:3:40: more than 16 YAML aliases (`*name` where `&name` stands too); write the values out"
        #expect(errors(Self.bomb(levels: 9, last: "? *a9\n: x")) == [expected])
    }

    @Test("words between stars are no aliases where nothing has that name")
    func stars() {
        let stars = "# " + Self.repeated("*very* *important* ", 50) + "\n"
        #expect(errors(stars + file()) == [])
        #expect(errors(stars + file(service: "    hashOn: &a client")) == [])
        #expect(errors("# " + Self.repeated("*a ", 16) + "\n" + file(service: "    hashOn: &a client")) == [])
        #expect(errors("# " + Self.repeated("*a ", 17) + "\n" + file(service: "    hashOn: &a client")).count == 1)
    }

    @Test("few aliases can multiply no more than the bound")
    func smallBomb() {
        // Sixteen aliases, three times each: 3^5 copies of a list of 1,000.
        let list = [String](repeating: "x", count: 1_000).joined(separator: ", ")
        var lines = ["a0: &a0 [\(list)]"]
        for level in 1...5 { lines.append("a\(level): &a\(level) [*a\(level - 1), *a\(level - 1), *a\(level - 1)]") }
        let found = errors(lines.joined(separator: "\n") + "\n? *a5\n: x")
        #expect(found.count == 1)
        #expect(found.first?.contains("more than 250000 values, aliases expanded") == true)
    }

    @Test("an alias to what holds it is an error")
    func loop() {
        #expect(errors("a: &a [*a]") == ["f:1:8: not valid YAML: found undefined alias"])
    }

    @Test(
        "deep nesting is refused",
        arguments: ["[", "{", "- ", "? ", "{a: ", "[{a: ", "- - ", "[? ", "{? ", "a: {", "? - ", "- ? "])
    func depth(_ opening: String) {
        for count in [40, 500, 5_000, 200_000 / opening.utf8.count] {
            let found = errors(Self.repeated(opening, count))
            #expect(found.count == 1)
        }
    }

    @Test("deep nesting by indentation is refused")
    func indentation() {
        let lines = (0..<600).map { Self.repeated(" ", $0) + "a:" }
        #expect(errors(lines.joined(separator: "\n")).first?.contains("nested deeper than 32 levels") == true)
    }

    @Test(
        "long runs of one thing end in an error, not in a hang",
        arguments: [
            "[]", "{},", "a: ", "!", "!a ", "&a ", "&a", "%TAG ! x\n", "%YAML 1.1\n", "---\n", "\"", "'", "|", "|\n ",
            "# x\n",
            "\n", "\t", "\r", " ", "*", "* ", "$", "${", "\\", "\u{feff}", "\u{2028}", "é", "😀", ":", ": ", ",", "@",
            "`",
            "a: 1\n", "- a\n", "x", "\"\\x41\" ", "...\n", "<<: ", "a:\n", "- ", "? a\n: ",
        ])
    func runs(_ part: String) {
        let text = Self.repeated(part, 100_000 / part.utf8.count)
        #expect(!errors(text).isEmpty)
        _ = errors(file(gateway: "  via: " + text))
        #expect(!errors(file(), ["gateway.via=" + text, text + "=1", "gateway." + text]).isEmpty)
    }

    @Test("tens of thousands of unknown keys end in a hundred errors")
    func unknownKeys() throws {
        let keys = (0..<45_000).map { "gatewai\($0): 1" }.joined(separator: "\n")
        let thrown = try #require(throws: ConfigurationErrors.self) { try parse(keys) }
        #expect(thrown.errors.count == 100)
    }

    @Test("thousands of keys in sections that stand twice, or are misspelt, end in errors as soon")
    func sectionsTwice() {
        let keys = (0..<20_000).map { "k\($0): {}" }.joined(separator: ", ")
        #expect(errors("gateway: {\(keys)}\ngateway: {\(keys)}").count == 100)
        let misspelt = (0..<20_000).compactMap { Unicode.Scalar(0x4e00 + $0) }.map { "gatewa\($0): {}" }
        #expect(errors(misspelt.joined(separator: "\n")).count == 100)
    }

    @Test("a service with too many backends, a file with too many services")
    func counts() {
        let instances = (0..<1_025).map { "http://h:\($0 + 1)" }.joined(separator: ", ")
        #expect(
            errors("services: [{name: a, path: /a, instances: [\(instances)]}]")
                == ["f:1:43: services[0].instances: 1025 elements; at most 1024"])
        let services = (0..<1_001).map { "{name: s\($0), path: /\($0)x, instances: [http://h]}" }.joined(
            separator: ", ")
        #expect(errors("services: [\(services)]") == ["f:1:11: services: 1001 elements; at most 1000"])
    }

    @Test("as many services and backends as the bounds allow load")
    func largest() throws {
        let services = (0..<1_000).map { "  - {name: s\($0), path: /p\($0), instances: [http://h\($0)]}" }
        #expect(try parse("services:\n" + services.joined(separator: "\n")).services.count == 1_000)
        let instances = (0..<1_024).map { "http://h:\($0 + 1)" }.joined(separator: ", ")
        let text = "services: [{name: a, path: /a, instances: [\(instances)]}]"
        #expect(try parse(text).services[0].instances.count == 1_024)
    }

    @Test("any mutation of a good file is a configuration or errors with places in the file")
    func mutations() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("mutations of a configuration: seed \(seed)")
        try mutate(seed: seed, rounds: 3_000)
    }

    private func mutate(seed: UInt64, rounds: Int) throws {
        let good = Array(
            """
            gateway: {port: ":8080", timeout: 30, trustedProxies: [10.0.0.0/8], via: "${V:-x}"}
            services:
              - &s
                name: users
                path: /api/users
                strategy: consistent_hash
                hashOn: header:X-User
                instances: [http://localhost:8081, {url: "http://[::1]:82/b", weight: 3}]
                health: {path: /health, expect: [200, 2xx], interval: 30s, quorum: majority}
              - {name: orders, path: /orders, instances: [http://h], limits: {bodyBytes: 1MiB}}
            rateLimit: {requestsPerSecond: 100, burstSize: 10, redisURL: "redis://:p%40@h:1/2"}
            """.utf8)
        let pieces = [
            "[", "]", "{", "}", ":", " ", "\n", "- ", "\"", "'", "*s", "&s ", "!!int ", "${", "}", "$", "|\n", "# ",
            "? ", "0", "-1", "99999999999999999999", "~", "\u{0}", "ä", "\t", "<<: *s", "%", "---", ",", "1e9", "..",
            "/",
        ]
        .map { Array($0.utf8) }
        var random = SplitMix64(seed: seed)
        for round in 0..<rounds {
            var bytes = good
            for _ in 0...Int.random(in: 0..<4, using: &random) {
                let at = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<5, using: &random) {
                case 0: bytes[at] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.removeSubrange(at..<min(bytes.count, at + Int.random(in: 1...20, using: &random)))
                case 2: bytes.insert(contentsOf: pieces[Int.random(in: 0..<pieces.count, using: &random)], at: at)
                case 3: bytes.insert(contentsOf: bytes[at..<min(bytes.count, at + 40)], at: at)
                default: bytes.truncate(at: at)
                }
                if bytes.isEmpty { bytes = [0x20] }
            }
            let text = String(decoding: bytes, as: UTF8.self)
            let lines = text.utf8.reduce(1) { $0 + ($1 == 0x0a || $1 == 0x0d ? 1 : 0) }
            do throws(ConfigurationErrors) {
                _ = try Configuration.parse(text, file: "f")
            } catch {
                #expect(!error.errors.isEmpty)
                for one in error.errors {
                    guard case .position(_, let line, let column) = one.place else {
                        Issue.record("seed \(seed), round \(round): \(one)")
                        continue
                    }
                    #expect((1...lines + 2).contains(line) && column >= 1, "seed \(seed), round \(round): \(one)")
                    #expect(!one.description.utf8.contains { $0 < 0x20 }, "seed \(seed), round \(round): \(one)")
                }
            }
        }
    }
}

extension [UInt8] {
    fileprivate mutating func truncate(at index: Int) { removeSubrange(index...) }
}
