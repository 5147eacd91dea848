import Primitives
import Testing

@testable import Configuration

@Suite("Kinds of values")
struct ScalarTests {
    private static let wide = TimeSpan.zero...TimeSpan.max

    @Test(
        "durations",
        arguments: [
            ("500ms", 500_000_000), ("30s", 30_000_000_000), ("5m", 300_000_000_000), ("1h", 3_600_000_000_000),
            ("2d", 172_800_000_000_000), ("7us", 7_000), ("1.5s", 1_500_000_000), ("0.001ms", 1_000), ("0", 0),
            ("0s", 0),
            ("0.0000000009s", 0), ("106751d", 9_223_286_400_000_000_000), ("007s", 7_000_000_000),
        ])
    func durations(_ text: String, _ nanoseconds: Int64) {
        let result = outcome { () throws(Invalid) in try duration(text, in: Self.wide) }
        #expect(result == .success(TimeSpan(nanoseconds: nanoseconds)))
    }

    @Test(
        "bare numbers are seconds where the seed has them", arguments: [("30", 30_000), ("0.25", 250), ("2s", 2_000)])
    func bareSeconds(_ text: String, _ milliseconds: Int64) {
        let result = outcome { () throws(Invalid) in try duration(text, in: Self.wide, bareSeconds: true) }
        #expect(result == .success(.milliseconds(milliseconds)))
    }

    @Test(
        "what is no duration",
        arguments: [
            "", "s", "ms", "-1s", "+1s", "1 s", " 1s", "1S", "1sec", "1m30s", "1e3s", ".5s", "1.s", "1..5s", "1.2.3s",
            "٣s",
            "106752d", "999999999999999999999s", "0x10s", "1_000s", "NaN", "inf", "1,5s", "1.", ".",
        ])
    func noDurations(_ text: String) {
        let expected = "\(quoted(text)) is not a duration; write a number and a unit, such as 500ms, 30s, 5m or 1h"
        #expect(
            outcome { () throws(Invalid) in try duration(text, in: Self.wide, bareSeconds: true) }
                == .failure(Refusal(message: expected)))
    }

    @Test("a number without a unit names the remedy", arguments: ["30", "1.5", "00"])
    func unitless(_ text: String) {
        let expected = "`\(text)` has no unit; write \(text)s or \(text)ms"
        #expect(
            outcome { () throws(Invalid) in try duration(text, in: Self.wide) } == .failure(Refusal(message: expected)))
    }

    @Test("a limit of less than a millisecond is none that a timer could keep")
    func tooShort() {
        #expect(
            outcome { () throws(Invalid) in try durationOrNone("10us") }
                == .failure(Refusal(message: "`10us` is out of range; write 1ms or more, or 0 for no limit")))
        #expect(outcome { () throws(Invalid) in try durationOrNone("1ms") } == .success(.milliseconds(1)))
        #expect(outcome { () throws(Invalid) in try durationOrNone("0") } == .success(nil))
    }

    @Test(
        "sizes",
        arguments: [
            ("1", 1), ("512", 512), ("512B", 512), ("8KiB", 8_192), ("64KB", 64_000), ("1MiB", 1_048_576),
            ("2MB", 2_000_000),
            ("1GiB", 1 << 30), ("3GB", 3_000_000_000), ("1048576GiB", 1 << 50),
        ])
    func sizes(_ text: String, _ bytes: Int) {
        #expect(outcome { () throws(Invalid) in try sizeOrNone(text) } == .success(.bytes(bytes)))
    }

    @Test("a size of 0 is no limit", arguments: ["0", "0B", "0KiB"])
    func noSize(_ text: String) {
        #expect(outcome { () throws(Invalid) in try sizeOrNone(text) } == .success(nil))
    }

    @Test(
        "what is no size",
        arguments: [
            "", "KiB", "-1", "1.5MiB", "1 KiB", "8K", "8k", "8kb", "8Kib", "1e3", "0x10", "99999999999999999999",
        ])
    func noSizes(_ text: String) {
        let expected = "\(quoted(text)) is not a size; write bytes, or a number and a unit, such as 64KiB, 1MiB or 10MB"
        #expect(outcome { () throws(Invalid) in try sizeOrNone(text) } == .failure(Refusal(message: expected)))
    }

    @Test("a size beyond every disk is out of range")
    func hugeSize() {
        let expected = "`1048577GiB` is out of range; write a size in 1B...1048576GiB, or 0 for no limit"
        #expect(outcome { () throws(Invalid) in try sizeOrNone("1048577GiB") } == .failure(Refusal(message: expected)))
    }

    @Test("whole numbers", arguments: [("0", 0), ("7", 7), ("1000000000", 1_000_000_000)])
    func integers(_ text: String, _ expected: Int) {
        #expect(outcome { () throws(Invalid) in try integer(text, in: 0...1_000_000_000) } == .success(expected))
    }

    @Test("what is no whole number", arguments: ["", "-1", "+1", "1.0", "1e3", "0x1", "1_000", " 1", "٣", "one"])
    func noIntegers(_ text: String) {
        let expected = "\(quoted(text)) is not a whole number; write one in 0...9"
        #expect(outcome { () throws(Invalid) in try integer(text, in: 0...9) } == .failure(Refusal(message: expected)))
    }

    @Test("numbers out of range name it", arguments: ["10", "99999999999999999999999999"])
    func rangeErrors(_ text: String) {
        let expected = "`\(text)` is out of range; write a number in 0...9"
        #expect(outcome { () throws(Invalid) in try integer(text, in: 0...9) } == .failure(Refusal(message: expected)))
    }

    @Test("a long or unprintable text is shown cut and cleaned")
    func shownText() {
        #expect(quoted(String(repeating: "a", count: 80)) == "`" + String(repeating: "a", count: 80) + "`")
        #expect(quoted(String(repeating: "a", count: 81)) == "`" + String(repeating: "a", count: 80) + "…`")
        #expect(quoted("a\nb\u{1b}[2J\u{202e}") == "`a\u{fffd}b\u{fffd}[2J\u{fffd}`")
    }

    @Test(
        "misspellings find what was meant",
        arguments: [
            ("prot", "port"), ("Port", "port"), ("prt", "port"), ("ratelimit", "rateLimit"),
            ("rate-limit", "rateLimit"),
            ("rate_limt", "rateLimit"), ("burstsize", "burstSize"), ("timeout", "timeout"),
        ])
    func suggestions(_ text: String, _ expected: String) {
        let keys = ["port", "rateLimit", "burstSize", "timeout", "admin"]
        #expect(suggestion(for: text, among: keys) == expected)
    }

    @Test("what is far from everything suggests nothing", arguments: ["", "x", "completely", "nimda"])
    func noSuggestion(_ text: String) {
        #expect(suggestion(for: text, among: ["port", "rateLimit", "admin"]) == nil)
        #expect(suggestion(for: String(repeating: "port", count: 100_000), among: ["port"]) == nil)
    }
}
