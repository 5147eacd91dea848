import LinuxIO
import Testing

@testable import Tracing

@Suite("W3C trace context")
struct TraceContextTests {
    private static let trace = "0af7651916cd43dd8448eb211c80319c"
    private static let span = "b7ad6b7169203331"
    private static let id = WideID(high: 0x0af7_6519_16cd_43dd, low: 0x8448_eb21_1c80_319c)

    private static func parent(_ text: String) -> TraceParent? {
        let bytes = Array(text.utf8)
        return TraceParent(bytes.span)
    }

    @Test(
        "a parent that counts",
        arguments: [
            ("00-\(trace)-\(span)-01", true), ("00-\(trace)-\(span)-00", false),
            // Flags that are not known say nothing.
            ("00-\(trace)-\(span)-03", true), ("00-\(trace)-\(span)-fe", false), ("00-\(trace)-\(span)-ff", true),
            // Versions to come.
            ("01-\(trace)-\(span)-01", true), ("cc-\(trace)-\(span)-01-what-the-future-will-be-like", true),
            ("cc-\(trace)-\(span)-00-", false), ("fe-\(trace)-\(span)-01", true),
        ])
    func counts(text: String, isSampled: Bool) throws {
        let parent = try #require(Self.parent(text))
        #expect(parent == TraceParent(trace: Self.id, parent: 0xb7ad_6b71_6920_3331, isSampled: isSampled))
        // What is passed on is always of the version that is known.
        var out = ByteBuffer()
        out.append(parent)
        #expect(out.text == "00-\(Self.trace)-\(Self.span)-\(isSampled ? "01" : "00")")
    }

    @Test(
        "a parent that does not",
        arguments: [
            "", "00", "-", "00-\(trace)-\(span)", "00-\(trace)-\(span)-", "00-\(trace)-\(span)-1",
            "00-\(trace)-\(span)-01-", "00-\(trace)-\(span)-01-more", "00-\(trace)-\(span)-01.more",
            "ff-\(trace)-\(span)-01", "cc-\(trace)-\(span)-01.what", "cc-\(trace)-\(span)-0100",
            "00-00000000000000000000000000000000-\(span)-01", "00-\(trace)-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-\(span)-01", "00-\(trace)-B7AD6B7169203331-01",
            "0X-\(trace)-\(span)-01",
            "00-\(trace)-\(span)-0x", "00-\(trace)-\(span)-0G", "00-\(trace.dropLast())g-\(span)-01",
            "00-\(trace.dropLast())-\(span)-010", "00-\(trace)0-\(span)-01", "00_\(trace)_\(span)_01",
            "00-\(trace)--\(span.dropLast())-01", ".0-\(trace)-\(span)-01", "00-\(trace)-\(span) 01",
            "00-\(trace.dropLast())\u{0}-\(span)-01",
        ])
    func doesNot(text: String) { #expect(Self.parent(text) == nil) }

    private static func isValid(_ lines: [String]) -> Bool {
        var state = TraceState()
        for line in lines { state.read(Array(line.utf8).span) }
        return state.isValid
    }

    private static let members = (0..<32).map { "k\($0)=v" }

    @Test(
        "a state that is passed on",
        arguments: [
            [""], ["foo=1"], ["foo=1,bar=2"], ["foo=1 , \t bar=2, , "], ["foo=1", "bar=2"],
            ["a-_*/0=!\"#$%&'()*+-./:;<>?@[]^_`{|}~"],
            ["fw529a3039@dt=FfAAAAA", "0tenant@s=1"], ["a= b"], ["\(String(repeating: "z", count: 256))=1"],
            ["\(String(repeating: "t", count: 241))@\(String(repeating: "v", count: 14))=1"],
            ["a=\(String(repeating: "x", count: 256))"], [members.joined(separator: ",")],
            [members[..<16].joined(separator: ","), members[16...].joined(separator: ",")],
        ])
    func passedOn(lines: [String]) { #expect(Self.isValid(lines)) }

    @Test(
        "a state that is not",
        arguments: [
            ["foo"], ["=1"], ["foo="], ["foo =1"], ["FOO=1"], ["foo.bar=1"], ["0foo=1"], ["foo@=1"], ["@foo=1"],
            ["foo@@bar=1"], ["foo@bar@baz=1"], ["foo=1=2"], ["foo=1\u{1}"], ["foo=ü"], ["-a=1"], ["a@0b=1"],
            ["\(String(repeating: "z", count: 257))=1"], ["a=\(String(repeating: "x", count: 257))"],
            ["\(String(repeating: "t", count: 242))@v=1"], ["t@\(String(repeating: "v", count: 15))=1"],
            [(members + ["one=more"]).joined(separator: ",")], [members.joined(separator: ","), "one=more"],
            ["foo=1,bar"], ["foo=1", "bar"], ["bar", "foo=1"],
        ])
    func isNot(lines: [String]) { #expect(!Self.isValid(lines)) }
}
