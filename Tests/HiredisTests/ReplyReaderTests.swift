import Hiredis
import LinuxIO
import Primitives
import Testing

/// What a stream of bytes reads as: each reply in a notation, and the error that ends it.
private func read(_ bytes: [UInt8], pieces: [Int] = [], bounds: ReplyBounds = ReplyBounds()) -> [String] {
    var reader = ReplyReader(bounds: bounds)
    var replies: [String] = []
    var start = 0
    for end in pieces + [bytes.count] {
        let piece = Array(bytes[start..<end])
        reader.feed(piece.span)
        start = end
        do throws(RedisProtocolError) {
            while try reader.next() { replies.append(notation(reader.reply)) }
        } catch {
            return replies + ["! \(error)"]
        }
    }
    return replies
}

private func notation(_ reply: Reply) -> String {
    var i = 0
    func value() -> String {
        defer { i += 1 }
        switch reply.kind(i) {
        case .bulk: return "'\(reply.text(i))'"
        case .status: return "+\(reply.text(i))"
        case .error: return "-\(reply.text(i))"
        case .integer: return "\(reply.integer(i) ?? .min)"
        case .null: return i < reply.count ? "nil" : "MISSING"
        case .array:
            let count = reply.elementCount(i) ?? 0
            var elements: [String] = []
            for _ in 0..<count {
                i += 1
                elements.append(value())
                i -= 1
            }
            return "[" + elements.joined(separator: " ") + "]"
        }
    }
    let text = value()
    return i == reply.count ? text : text + " and more"
}

private func wire(_ text: String) -> [UInt8] { Array(text.replacing("\n", with: "\r\n").utf8) }

@Suite("Replies")
struct ReplyReaderTests {
    static let streams: [(String, [String])] = [
        ("+OK\n", ["+OK"]),
        ("-ERR no\n:42\n:-7\n:0\n", ["-ERR no", "42", "-7", "0"]),
        ("$5\nhello\n$0\n\n$-1\n*-1\n*0\n", ["'hello'", "''", "nil", "nil", "[]"]),
        ("$4\na\nb\n", ["'a\r\nb'"]),
        ("*2\n*2\n:1\n$1\nx\n+s\n", ["[[1 'x'] +s]"]),
        ("*3\n*0\n*1\n*0\n$-1\n:9\n", ["[[] [[]] nil]", "9"]),
        (":9223372036854775807\n:-9223372036854775808\n", ["9223372036854775807", "-9223372036854775808"]),
        ("+99999999999\n-99999999999\n*1\n:99999999999\n", ["+99999999999", "-99999999999", "[99999999999]"]),
        ("*1\n*1\n*1\n*1\n*1\n*1\n*1\n:1\n", ["[[[[[[[1]]]]]]]"]),
        ("*2\n-WRONGTYPE x\n:1\n", ["[-WRONGTYPE x 1]"]),
    ]

    @Test("reads what RESP2 says, whole and cut at every byte", arguments: streams)
    func reads(stream: String, expected: [String]) {
        let bytes = wire(stream)
        #expect(read(bytes) == expected)
        for cut in 0...bytes.count { #expect(read(bytes, pieces: [cut]) == expected, "cut at \(cut)") }
        #expect(read(bytes, pieces: Array(0...bytes.count)) == expected)
    }

    @Test(
        "what is no RESP2 is refused, and nothing behind it is read",
        arguments: [
            ("?\n:1\n", "got \"?\" as reply type byte"), ("*x\n", "Bad multi-bulk length"),
            ("*-2\n", "Multi-bulk length out of range"), ("$-2\n", "Bulk string length out of range"),
            ("$x\n", "Bad bulk string length"), ("$99999999999999999999999\n", "Bad bulk string length"),
            (":+5\n", "Bad integer value"), (":\n", "Bad integer value"),
            (":9223372036854775808\n", "Bad integer value"), ("*9223372036854775807\n", "out of range"),
            ("$3\nabcXX:1\n", "where its length says"), ("$3\nabcd\n", "where its length says"),
            ("*1\n*1\n*1\n*1\n*1\n*1\n*1\n*1\n*1\n:1\n", "depth > 7"),
        ])
    func malformed(stream: String, reason: String) {
        let bytes = wire(stream)
        for pieces in [[], Array(0...bytes.count)] {
            let replies = read(bytes, pieces: pieces)
            #expect(replies.count == 1)
            #expect(replies.first?.hasPrefix("! ") == true && replies.first?.contains(reason) == true, "\(replies)")
        }
    }

    @Test("an error stays: a reader that failed never reads again")
    func errorStays() throws {
        var reader = ReplyReader()
        let bad = wire("?")
        let good = wire("+OK\n")
        reader.feed(bad.span)
        #expect(throws: RedisProtocolError.self) { _ = try reader.next() }
        reader.feed(good.span)
        #expect(throws: RedisProtocolError.self) { _ = try reader.next() }
    }

    static let bounds = ReplyBounds(valuesMax: 8, bytesMax: 100)

    @Test(
        "a reply over its bounds is refused before it has taken memory",
        arguments: [
            ("*8\n", "! a reply of more than 8 values"),
            ("*2147483647\n", "! a reply of more than 8 values"),
            ("*7\n" + String(repeating: "*1\n", count: 6) + ":1\n:2\n", "! a reply of more than 8 values"),
            ("$101\n" + String(repeating: "x", count: 101) + "\n", "! a reply of more than 100 bytes"),
            ("$9000000000000000000\n" + String(repeating: "x", count: 101), "! a reply of more than 100 bytes"),
            // By the announcement, which is not waited for.
            ("$101\n", "! a reply of more than 100 bytes"),
            ("$99999999999\n", "! a reply of more than 100 bytes"),
            ("$9223372036854775807\n", "! a reply of more than 100 bytes"),
            ("*2\n$60\n" + String(repeating: "x", count: 60) + "\n$41\n", "! a reply of more than 100 bytes"),
            ("+" + String(repeating: "x", count: 120), "! a reply of more than 100 bytes"),
            (
                "*2\n$60\n" + String(repeating: "x", count: 60) + "\n$60\n" + String(repeating: "x", count: 60) + "\n",
                "! a reply of more than 100 bytes"
            ),
        ])
    func bounded(stream: String, expected: String) {
        let bytes = wire(stream)
        #expect(read(bytes, bounds: Self.bounds) == [expected])
        #expect(read(bytes, pieces: Array(0...bytes.count), bounds: Self.bounds) == [expected])
    }

    @Test("a reply at its bounds is read, again and again")
    func atTheBounds() {
        let one = wire("*7\n$90\n" + String(repeating: "x", count: 90) + "\n:1\n:2\n:3\n:4\n:5\n:6\n")
        let many = Array(repeating: one, count: 50).flatMap(\.self)
        let bounds = ReplyBounds(valuesMax: 8, bytesMax: 8_192)
        #expect(read(many, bounds: bounds).count == 50)
    }

    @Test("thousands of replies in one read are read one by one")
    func pipelined() {
        let bytes = wire(String(repeating: "+OK\n+QUEUED\n*1\n:5\n", count: 3_000))
        let replies = read(bytes)
        #expect(replies.count == 9_000)
        #expect(replies.last == "[5]")
    }

    @Test("random bytes, and true replies with bytes changed, are read or refused, alike however they are cut")
    func random() {
        let seed = SystemClock.random64()
        var random = SplitMix64(seed: seed)
        let alphabet = Array("*$:+-0123456789\r\nab".utf8)
        for round in 0..<4_000 {
            var bytes: [UInt8]
            if round % 2 == 0 {
                bytes = (0..<Int.random(in: 0...60, using: &random)).map { _ in
                    round % 4 == 0 ? UInt8.random(in: 0...255, using: &random) : alphabet.randomElement(using: &random)!
                }
            } else {
                bytes = wire(
                    Self.streams.randomElement(using: &random)!.0 + Self.streams.randomElement(using: &random)!.0)
                for _ in 0..<Int.random(in: 1...3, using: &random) {
                    bytes[Int.random(in: bytes.indices, using: &random)] = alphabet.randomElement(using: &random)!
                }
            }
            let whole = read(bytes, bounds: Self.bounds)
            let cuts = (0..<3).map { _ in Int.random(in: 0...bytes.count, using: &random) }.sorted()
            #expect(read(bytes, pieces: cuts, bounds: Self.bounds) == whole, "seed \(seed) round \(round): \(bytes)")
        }
    }

    @Test("numbers spelled in text are read strictly")
    func decimals() throws {
        let cases: [(String, Int64?)] = [
            ("0", 0), ("17", 17), ("-17", -17), ("9223372036854775807", .max), ("-9223372036854775808", .min),
            ("9223372036854775808", nil), ("-9223372036854775809", nil), ("", nil), ("-", nil), ("+1", nil),
            ("1.5", nil), ("inf", nil), (" 1", nil), ("99999999999999999999999", nil),
        ]
        for (text, expected) in cases {
            var reader = ReplyReader()
            let bytes = Array("$\(text.utf8.count)\r\n\(text)\r\n".utf8)
            reader.feed(bytes.span)
            #expect(try reader.next())
            #expect(reader.reply.integer(0) == expected, "\(text)")
        }
    }

    @Test("values are told apart, and asking for another kind or beyond the end gives nothing")
    func access() throws {
        var reader = ReplyReader()
        let bytes = wire("*3\n*2\n:1\n:2\n$2\nhi\n:5\n")
        reader.feed(bytes.span)
        #expect(try reader.next())
        let reply = reader.reply
        #expect(reply.count == 6)
        #expect(reply.elementCount(0) == 3)
        #expect(reply.end(of: 0) == 6)
        #expect(reply.end(of: 1) == 4)
        #expect(reply.isText(4, Array("hi".utf8)))
        #expect(!reply.isText(4, Array("ho".utf8)) && !reply.isText(4, Array("hi!".utf8)))
        #expect(!reply.isText(5, Array("hi".utf8)) && !reply.isText(9, []))
        #expect(reply.integer(4) == nil && reply.elementCount(4) == nil && reply.integer(5) == 5)
        #expect(reply.kind(6) == .null && reply.kind(-1) == .null && reply.integer(99) == nil)
        #expect(reply.bytes(99).isEmpty && reply.text(99).isEmpty && reply.end(of: 99) == 99)
    }
}
