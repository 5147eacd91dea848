import Foundation
import HTTP1
import Testing

@Suite("A known name")
struct NameTests {
    static func name(_ text: String) -> FieldName {
        let input = bytes(text)
        return FieldName(input.span)
    }

    @Test("of a field is recognized in any case, and only whole", arguments: FieldName.allCases)
    func fieldNames(_ name: FieldName) {
        let spelling = name.spelling.description
        #expect(Self.name(spelling) == name)
        #expect(Self.name(spelling.lowercased()) == name)
        #expect(Self.name(spelling.uppercased()) == name)
        guard name != .other else { return }
        #expect(Self.name(spelling + "x") == .other)
        #expect(Self.name("x" + spelling) == .other)
        #expect(Self.name(String(repeating: "x", count: 24) + spelling) == .other)
        #expect(Self.name(String(spelling.dropLast())) == .other)
        #expect(Self.name(String(spelling.dropFirst())) == .other)
        let changed = spelling.replacingOccurrences(of: "-", with: "_")
        #expect(Self.name(changed) == (changed == spelling ? name : .other))
        #expect(Self.name("\r" + spelling.dropFirst()) == .other)
    }

    @Test("of a field fits one word with all others, and no two share a spelling")
    func fieldNameCount() {
        #expect(FieldName.allCases.count <= 64)
        #expect(Set(FieldName.allCases.map { $0.spelling.description.lowercased() }).count == FieldName.allCases.count)
    }

    @Test(
        "of a method is exact",
        arguments: [
            ("GET", .get), ("HEAD", .head), ("POST", .post), ("PUT", .put), ("DELETE", .delete), ("PATCH", .patch),
            ("OPTIONS", .options), ("TRACE", .trace), ("get", .other), ("GETS", .other), ("G", .other),
            ("PROPFIND", .other), ("XXXXXXXGET", .other), ("XXXXXXXXGET", .other), ("QUERY", .other),
        ] as [(String, HTTP1.Method)])
    func methods(_ text: String, _ method: HTTP1.Method) {
        let input = bytes("\(text) / HTTP/1.1\r\nHost: h\r\n\r\n")
        let (head, outcome) = parse(input, as: RequestHead.self)
        #expect(outcome == .complete(length: input.count))
        #expect(head.method == method)
    }

    @Test("of a method says what a repetition does")
    func semantics() {
        let all: [HTTP1.Method] = [.get, .head, .post, .put, .delete, .patch, .options, .trace, .connect, .other]
        #expect(all.filter(\.isSafe) == [.get, .head, .options, .trace])
        #expect(all.filter(\.isIdempotent) == [.get, .head, .put, .delete, .options, .trace])
    }

    @Test("set holds what was put into it")
    func sets() {
        var set: FieldSet = [.host, .rateLimitPolicy]
        #expect(set.contains(.host) && set.contains(.rateLimitPolicy) && !set.contains(.other))
        set.remove(.host)
        set.insert(.via)
        #expect(set == [.via, .rateLimitPolicy])
        #expect(set.union([.host]).subtracting([.via]) == [.host, .rateLimitPolicy])
        #expect(set.subtracting(set).isEmpty)
    }

    @Test("is either bound to its connection or safe from Connection", arguments: FieldName.allCases)
    func partition(_ name: FieldName) {
        guard name != .other else { return }
        #expect(FieldSet.hopByHop.contains(name) != FieldSet.connectionProof.contains(name))
    }
}

@Suite("A character")
struct CharacterTests {
    static let tokens = Set(
        bytes("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))

    @Test("is accepted in a name, a value and a target exactly where the grammar has it")
    func sets() {
        for byte in UInt8.min...UInt8.max {
            let name = bytes("GET / HTTP/1.1\r\nHost: h\r\nx") + [byte] + bytes("y: z\r\n\r\n")
            // A colon ends the name and leaves a good value behind it.
            let isName = Self.tokens.contains(byte) || byte == UInt8(ascii: ":")
            #expect((parse(name, as: RequestHead.self).1 == .complete(length: name.count)) == isName, "\(byte)")
            let value = bytes("GET / HTTP/1.1\r\nHost: h\r\nx: a") + [byte] + bytes("b\r\n\r\n")
            let isValue = byte == 9 || (byte >= 32 && byte != 127)
            #expect((parse(value, as: RequestHead.self).1 == .complete(length: value.count)) == isValue, "\(byte)")
            let target = bytes("GET /a") + [byte] + bytes("b HTTP/1.1\r\nHost: h\r\n\r\n")
            let isTarget = byte > 32 && byte < 127 && byte != UInt8(ascii: "#")
            #expect((parse(target, as: RequestHead.self).1 == .complete(length: target.count)) == isTarget, "\(byte)")
        }
    }
}

@Suite("A rule")
struct RuleTests {
    @Test("has a status, a title and a detail that fit a problem", arguments: Rule.allCases)
    func texts(_ rule: Rule) {
        #expect([400, 408, 411, 413, 414, 417, 421, 431, 501, 505].contains(rule.status))
        #expect(!reasonPhrase(rule.status).description.isEmpty)
        for text in [rule.title.description, rule.detail.description] {
            #expect(text.utf8.count > 5)
            #expect(text.utf8.allSatisfy { $0 >= 32 && $0 < 127 && $0 != 34 && $0 != 92 })
        }
        #expect(rule.detail.description.contains("RFC "))
    }

    @Test("has a name for programs of its own")
    func codes() {
        let codes = Rule.allCases.map(\.code.description)
        #expect(Set(codes).count == Rule.allCases.count)
        for code in codes {
            #expect(code.utf8.allSatisfy { 0x61...0x7a ~= $0 || 0x30...0x39 ~= $0 || $0 == 0x2d }, "\(code)")
        }
    }

    @Test("stands in the documentation with its code and status")
    func documented() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
            "../../docs/http.md")
        let text = try String(contentsOf: file, encoding: .utf8)
        for rule in Rule.allCases { #expect(text.contains("| `\(rule.code)` | \(rule.status) | "), "\(rule.code)") }
    }

    @Test("has a title of its own")
    func titles() {
        #expect(Set(Rule.allCases.map(\.title.description)).count == Rule.allCases.count)
    }
}
