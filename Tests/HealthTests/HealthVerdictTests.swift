import Health
import Membership
import Testing

@Suite struct HealthVerdictTests {
    private let example = HealthVerdict(
        state: .down, kind: .traffic, boot: BootID(0xfeed), sequence: 7,
        since: UnixTime(milliseconds: 1_700_000_000_123),
        evidence: #"3 failed requests: "status 503""#)

    @Test("a verdict is one line of JSON and reads back as it was")
    func roundTrip() throws {
        let json =
            #"{"boot":"000000000000feed","evidence":"3 failed requests: \"status 503\"","kind":"traffic","#
            + #""sequence":7,"since":1700000000123,"state":"down"}"#
        #expect(example.json == json)
        #expect(try HealthVerdict(json: Array(json.utf8)) == example)
        var extreme = example
        extreme.sequence = .max
        extreme.since = UnixTime(milliseconds: .min)
        #expect(try HealthVerdict(json: Array(extreme.json.utf8)) == extreme)
    }

    @Test("news name the backend and the node, and read back as they were")
    func news() throws {
        let backend = BackendKey(service: "users", url: "http://[::1]:8081/a|b")
        let news = HealthNews(backend: backend, node: node("n-1"), verdict: example)
        #expect(!news.json.contains("\n"))
        #expect(news.json.contains(#""backend":"http://[::1]:8081/a|b""#))
        #expect(try HealthNews(json: Array(news.json.utf8)) == news)
    }

    @Test("fields of later releases are skipped")
    func unknownFields() throws {
        let json = example.json.dropLast() + #","weight":{"a":[1,2]},"draining":true}"#
        #expect(try HealthVerdict(json: Array(json.utf8)) == example)
    }

    @Test("evidence is cut at a character and holds no control characters")
    func evidenceBound() throws {
        let long = HealthVerdict(
            state: .up, kind: .probe, boot: BootID(1), sequence: 1, since: UnixTime(milliseconds: 0),
            evidence: "\u{1b}[31m\n" + String(repeating: "é", count: 500))
        #expect(long.evidence.hasPrefix(" [31m éé"))
        #expect(long.evidence.utf8.count == HealthVerdict.evidenceBytesMax)
        #expect(try HealthVerdict(json: Array(long.json.utf8)) == long)
    }

    private static let good =
        #"{"boot":"000000000000feed","evidence":"e","kind":"probe","sequence":7,"since":1,"state":"up"}"#

    @Test(
        "hostile verdicts are refused with the reason",
        arguments: [
            ("", HealthFormatError.malformed), ("null", .malformed), ("[]", .malformed), ("{}", .malformed),
            ("{", .malformed), ("\u{0}", .malformed),
            (String(repeating: "[", count: 4_000), .malformed),
            (String(repeating: " ", count: 4_097), .tooLong(bytes: 4_097)),
            (good.replacing("up", with: "sideways"), .malformed),
            (good.replacing("probe", with: "rumour"), .malformed),
            (good.replacing("7", with: "-1"), .malformed),
            (good.replacing("7", with: "1.5"), .malformed),
            (good.replacing("7", with: "18446744073709551616"), .malformed),
            (good.replacing("7", with: #""7""#), .malformed),
            (good.replacing("000000000000feed", with: "feed"), .badBoot),
            (good.replacing("000000000000feed", with: "000000000000FEED"), .badBoot),
            (good.replacing(#""e""#, with: #""a\u0000b""#), .badEvidence),
            (good.replacing(#""e""#, with: #""a\nforged log line""#), .badEvidence),
            (good.replacing(#""e""#, with: "\"\(String(repeating: "x", count: 201))\""), .badEvidence),
        ])
    func hostile(json: String, error: HealthFormatError) {
        #expect(throws: error) { try HealthVerdict(json: Array(json.utf8)) }
    }

    @Test("a message cut anywhere is refused, and never trapped on")
    func cut() {
        let json = Array(
            HealthNews(backend: BackendKey(service: "s", url: "u"), node: node("n"), verdict: example).json.utf8)
        for end in json.indices {
            #expect(throws: HealthFormatError.malformed) { try HealthNews(json: Array(json[..<end])) }
        }
        for index in json.indices {
            for byte: UInt8 in [0, 0x22, 0x5c, 0x7b, 0xff] {
                var bent = json
                bent[index] = byte
                _ = try? HealthNews(json: bent)
            }
        }
    }

    @Test("news without a subject or a valid author are refused")
    func newsHostile() {
        #expect(throws: HealthFormatError.malformed) { try HealthNews(json: Array(example.json.utf8)) }
        let news = HealthNews(backend: BackendKey(service: "s", url: "u"), node: node("n"), verdict: example).json
        #expect(throws: HealthFormatError.badNode) {
            try HealthNews(json: Array(news.replacing(#""node":"n""#, with: #""node":"a|b""#).utf8))
        }
    }

    @Test(
        "a field is taken apart at its last bar",
        arguments: [
            ("http://a:1|n", "http://a:1", "n"), ("http://a:1/x|y|n-2", "http://a:1/x|y", "n-2"), ("||n", "|", "n"),
        ])
    func field(text: String, url: String, author: String) throws {
        let parsed = try HealthKeys.parse(field: text)
        #expect(parsed.url == url)
        #expect(parsed.node == node(author))
        #expect(HealthKeys.field(url: url, node: node(author)) == text)
    }

    @Test(
        "other fields are refused",
        arguments: [
            ("", HealthFormatError.badField), ("http://a:1", .badField), ("|n", .badField), ("http://a:1|", .badNode),
            ("http://a:1|no de", .badNode), (String(repeating: "x", count: 3_000) + "|n", .tooLong(bytes: 3_002)),
        ])
    func badField(text: String, error: HealthFormatError) {
        #expect(throws: error) { try HealthKeys.parse(field: text) }
    }
}
