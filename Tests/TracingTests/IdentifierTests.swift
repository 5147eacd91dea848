import LinuxIO
import Testing

@testable import Tracing

@Suite("Names of requests")
struct IdentifierTests {
    @Test("two sources with other seeds give other names, none of them zero, in 32 and 16 digits")
    func source() {
        var first = IDSource(seeds: 1, 2)
        var second = IDSource(seeds: 1, 3)
        var seen: Set<String> = []
        for _ in 0..<1_000 {
            for id in [first.wide(), second.wide()] {
                var text = ByteBuffer()
                text.append(id)
                #expect(text.count == 32 && !id.isZero)
                seen.insert(text.text)
            }
            var text = ByteBuffer()
            text.append(narrow: first.narrow())
            #expect(text.count == 16 && text.text != "0000000000000000")
        }
        #expect(seen.count == 2_000)
    }

    @Test("the same seeds give the same names")
    func repeats() {
        var first = IDSource(seeds: 7, 8)
        var second = IDSource(seeds: 7, 8)
        for _ in 0..<10 { #expect(first.wide() == second.wide() && first.narrow() == second.narrow()) }
    }

    @Test(
        "a name can be kept that means nothing to logs, JSON, shells and HTML",
        arguments: [
            ("a", true), ("3fe5c1b2-8b1f-4b4a-9d68-1c5ad1b2f001", true),
            ("Root=1-67891233-abcdef012345678912345678", true),
            ("A.b_c~d:e/f+g=h@i", true), (String(repeating: "x", count: 128), true), ("", false),
            (String(repeating: "x", count: 129), false), ("a b", false), ("a\"b", false), ("a\\b", false),
            ("a,b", false),
            ("<b>", false), ("a;b", false), ("$(id)", false), ("`id`", false), ("a%0d%0ab", false),
            ("\u{1b}[31m", false),
            ("ü", false), ("a\tb", false), ("{a}", false), ("a'b", false), ("a|b", false), ("a&b", false),
        ])
    func kept(name: String, isKept: Bool) {
        let bytes = Array(name.utf8)
        let found = RequestID.isKept(bytes.span)
        #expect(found == isKept)
    }
}
