import LinuxIO
import Primitives
import Testing

@testable import RateLimiting

@Suite("A backend's limits beside the gateway's")
struct OtherLimitsTests {
    private static let fields = RateLimitFields([
        Policy(name: "login", limit: 5, window: .seconds(60), burst: 5),
        Policy(name: "a.b-c_d", limit: 7, window: .seconds(1), burst: 7),
    ])

    private static func kept(_ lines: [String]) -> [String] {
        var others = OtherLimits()
        for line in lines {
            let bytes = Array(line.utf8)
            others.takeLimits(of: bytes.span, beside: fields)
        }
        return others.limits.map { String(decoding: $0, as: UTF8.self) }
    }

    @Test(
        "items go on by their names, as they are; those with the name of a policy of the gateway do not",
        arguments: [
            ([#""orders";r=3;t=9"#], [#""orders";r=3;t=9"#]),
            ([#""login";r=3"#], []), ([#""a.b-c_d""#], []),
            ([#""login";r=3, "orders";r=4"#, #""a";r=1"#], [#""orders";r=4"#, #""a";r=1"#]),
            ([#""Login";r=3"#, #""logi""#, #""login2""#], [#""Login";r=3"#, #""logi""#, #""login2""#]),
            (
                [#""a,b" ,"c;d";  pk=:YQ==:;q=-1.5;u="x,\"y\\";on;off=?0;at=@17;unit=content-bytes"#],
                [#""a,b""#, #""c;d";  pk=:YQ==:;q=-1.5;u="x,\"y\\";on;off=?0;at=@17;unit=content-bytes"#]
            ),
            ([#""";r=1"#], [#""";r=1"#]),
        ] as [([String], [String])])
    func items(lines: [String], expected: [String]) { #expect(Self.kept(lines) == expected) }

    @Test(
        "what is no list of named items stays behind: older drafts', and what would spoil the gateway's own items",
        arguments: [
            "", " ", "100", "100, 100;w=60", "limit=100, remaining=50, reset=5", "orders;r=3", "(\"orders\")",
            "\"orders\";r=3,", "\"orders\",,\"a\"", "\"orders", "\"orders\" x", "\"orders\";", "\"orders\";R=3",
            "\"orders\";r=", "\"orders\";r= 3", "\"orders\";r=3=4", "\"orders\";r=1.", "\"orders\";r=1.2345",
            "\"orders\";r=1234567890123456", "\"orders\";r=-", "\"orders\";on=?2", "\"orders\";at=@1.5",
            "\"orders\";pk=:YQ", "\"orders\";u=\"x", "\"ord\\ers\"", "\"orders\u{e9}\"", "\"orders\u{1}\"",
            "\"orders\";r=3 ; t=9", "\"orders\";r=(1)", "\"orders\";r=%\"a\"",
        ])
    func others(line: String) {
        #expect(Self.kept([line]) == [])
        // A line is judged by itself.
        #expect(Self.kept([line, #""orders";r=3"#]) == [#""orders";r=3"#])
    }

    @Test("what is kept stands behind the gateway's items, also where nobody knows what remains of those")
    func written() {
        var others = OtherLimits()
        for (line, isPolicy) in [(#""orders";q=9;w=60"#, true), (#""orders";r=3, "login";r=7"#, false)] {
            let bytes = Array(line.utf8)
            if isPolicy {
                others.takePolicies(of: bytes.span, beside: Self.fields)
            } else {
                others.takeLimits(of: bytes.span, beside: Self.fields)
            }
        }
        func text(_ remaining: Int?, isShadow: Bool = false) -> String {
            var report = PolicyReport()
            report.add(.admit(remaining: remaining), of: 0, isShadow: isShadow)
            #expect(Self.fields.writes(report) == !isShadow)
            var output = ByteBuffer()
            Self.fields.write(report, others: others, to: &output)
            return output.text
        }
        let policies = "RateLimit-Policy: \"login\";q=5;w=60, \"orders\";q=9;w=60\r\n"
        #expect(text(4) == policies + "RateLimit: \"login\";r=4, \"orders\";r=3\r\n")
        #expect(text(nil) == policies + "RateLimit: \"orders\";r=3\r\n")
        #expect(text(4, isShadow: true) == "")
    }

    @Test("whatever bytes a line has, it is read or it is not")
    func anything() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SplitMix64(seed: seed)
        let alphabet = Array("\"\\,;= :?@*-.aZ09\u{7f}\u{e9}\t".utf8)
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 0...12, using: &random)).map { _ in
                alphabet[Int.random(in: 0..<alphabet.count, using: &random)]
            }
            var others = OtherLimits()
            others.takeLimits(of: bytes.span, beside: Self.fields)
            // What is kept is kept again: nothing of it is read otherwise by itself.
            for item in others.limits {
                var again = OtherLimits()
                again.takeLimits(of: item.span, beside: Self.fields)
                #expect(again.limits == [item], "seed \(seed): \(String(decoding: bytes, as: UTF8.self))")
            }
        }
    }
}
