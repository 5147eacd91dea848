import HTTP1
import Primitives
import Testing

/// What came of a body that was given in pieces.
struct Relayed: Equatable {
    var payload: [UInt8] = []
    /// Bytes that belong to the body, once it has ended.
    var end: Int?
    var rule: Rule?
    var offset: Int?
}

/// Gives `input` in pieces that end at `cuts`, keeping nothing between them; all offsets are those of the whole.
func relay(_ input: [UInt8], cuts: [Int], with decoder: BodyDecoder) -> Relayed {
    var decoder = decoder
    var result = Relayed()
    var start = 0
    for cut in cuts + [input.count] where cut >= start {
        let piece = Array(input[start..<cut])
        var offset = 0
        events: while true {
            switch decoder.next(piece.span, at: offset) {
            case .data(let range):
                #expect(range.lowerBound >= offset && range.upperBound <= piece.count && !range.isEmpty)
                result.payload += piece[range]
                offset = range.upperBound
            case .needMore(let consumed):
                #expect(consumed == piece.count)
                break events
            case .end(let consumed):
                #expect(consumed >= offset && consumed <= piece.count)
                #expect(decoder.isComplete && decoder.remaining == 0 && decoder.endOfInput == .complete)
                result.end = start + consumed
                return result
            case .malformed(let violation):
                #expect(violation.offset >= offset && violation.offset <= piece.count)
                result.rule = violation.rule
                result.offset = start + violation.offset
                return result
            }
        }
        start = cut
    }
    return result
}

@Suite("A chunked body")
struct ChunkedBodyTests {
    static let decoder = BodyDecoder(RequestFraming.chunked, limits: HeadLimits())

    /// Whole, byte by byte, and cut once at every place: always the same.
    static func relayEveryWay(_ input: [UInt8], with decoder: BodyDecoder = decoder) -> Relayed {
        let whole = relay(input, cuts: [], with: decoder)
        #expect(relay(input, cuts: Array(0..<input.count), with: decoder) == whole)
        for cut in 0...input.count { #expect(relay(input, cuts: [cut], with: decoder) == whole) }
        return whole
    }

    @Test(
        "is put together again",
        arguments: [
            ("0\r\n\r\n", ""),
            ("000\r\n\r\n", ""),
            ("5\r\nHello\r\n0\r\n\r\n", "Hello"),
            ("a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n", "0123456789x"),
            ("A\r\n\r\n0\r\n\r\n\r\nX\r\n0\r\n\r\n", "\r\n0\r\n\r\n\r\nX"),
            ("0000000000000005\r\nHello\r\n0\r\n\r\n", "Hello"),
            ("5;a=b\r\nHello\r\n0;c\r\n\r\n", "Hello"),
            ("5 \t;a=\"x; y\" ; z\r\nHello\r\n0\r\n\r\n", "Hello"),
            ("5;\u{e9}\r\nHello\r\n0\r\n\r\n", "Hello"),
            ("1\r\na\r\n0\r\nX-Checksum: 1\r\nContent-Length: 5\r\nEmpty:\r\n\r\n", "a"),
        ])
    func good(_ text: String, _ payload: String) {
        let input = bytes(text + "NEXT")
        let result = Self.relayEveryWay(input)
        #expect(result == Relayed(payload: bytes(payload), end: input.count - 4))
    }

    @Test(
        "is refused when its framing is not exact",
        arguments: [
            (.malformedChunkSize, "‸\r\n"),
            (.malformedChunkSize, "‸g\r\n"),
            (.malformedChunkSize, "‸ 5\r\nHello\r\n"),
            (.malformedChunkSize, "‸+5\r\nHello\r\n"),
            (.malformedChunkSize, "‸-1\r\n"),
            (.malformedChunkSize, "0‸x5\r\nHello\r\n"),
            (.malformedChunkSize, "5‸,\r\nHello\r\n"),
            (.malformedChunkSize, "5‸\u{0}\r\nHello\r\n"),
            (.malformedChunkSize, "‸;a\r\n"),
            (.bareLineFeed, "5‸\nHello\r\n"),
            (.bareCarriageReturn, "5\r‸Hello"),
            (.bareCarriageReturn, "5\r‸\r\n"),
            (.chunkSizeTooLarge, "800000000000000‸0\r\n"),
            (.chunkSizeTooLarge, "fffffffffffffff‸f\r\n"),
            (.chunkSizeTooLarge, "0000000000000000‸5\r\n"),
            (.malformedChunkExtension, "5 ‸\r\nHello\r\n"),
            (.malformedChunkExtension, "5 ‸5\r\nHello\r\n"),
            (.malformedChunkExtension, "5;a‸\u{0}\r\nHello\r\n"),
            (.malformedChunkExtension, "5;a=\"‸\u{b}\"\r\nHello\r\n"),
            (.bareLineFeed, "5;a‸\nHello\r\n"),
            (.bareLineFeed, "5 ‸\nHello\r\n"),
            (.bareCarriageReturn, "5;a\r‸b\r\n"),
            (.malformedChunkEnd, "5\r\nHello‸5\r\n"),
            (.malformedChunkEnd, "5\r\nHello‸\n"),
            (.malformedChunkEnd, "5\r\nHello\r‸\r"),
            (.malformedChunkEnd, "5\r\nHello‸!\r\n"),
            (.foldedLine, "0\r\n‸ a\r\n\r\n"),
            (.foldedLine, "0\r\nA: b\r\n‸\tc\r\n\r\n"),
            (.emptyFieldName, "0\r\n‸: b\r\n\r\n"),
            (.invalidFieldName, "0\r\n‸\u{0}\r\n\r\n"),
            (.invalidFieldName, "0\r\nA‸[: b\r\n\r\n"),
            (.whitespaceBeforeColon, "0\r\nA‸ : b\r\n\r\n"),
            (.missingColon, "0\r\nGET‸\r\n\r\n"),
            (.whitespaceBeforeColon, "0\r\nGET‸ / HTTP/1.1\r\n\r\n"),
            (.bareLineFeed, "0\r\n‸\n"),
            (.bareLineFeed, "0\r\nA: b‸\n\r\n"),
            (.invalidFieldValue, "0\r\nA: ‸\u{0}\r\n\r\n"),
            (.bareCarriageReturn, "0\r\nA: b\r‸c\r\n\r\n"),
            (.bareCarriageReturn, "0\r\n\r‸a"),
        ] as [(Rule, String)])
    func bad(_ rule: Rule, _ text: String) {
        let row = Marked(text)
        let result = Self.relayEveryWay(row.bytes)
        #expect(result.rule == rule)
        // A CR is known to be bare at the byte behind it, when the CR itself may have been discarded.
        #expect(result.offset == row.offset)
        #expect(result.end == nil)
    }

    @Test("has extensions of a bounded length on each line")
    func extensions() {
        let fits = ";" + String(repeating: "a", count: CodecLimits.extensionBytesMax)
        let good = bytes("1\(fits)\r\na\r\n1\(fits)\r\nb\r\n0\(fits)\r\n\r\n")
        #expect(relay(good, cuts: [], with: Self.decoder) == Relayed(payload: bytes("ab"), end: good.count))
        let bad = bytes("1\(fits)a\r\na\r\n")
        #expect(relay(bad, cuts: [], with: Self.decoder).rule == .chunkExtensionTooLong)
        let blanks = bytes("1" + String(repeating: " ", count: 1000))
        #expect(relay(blanks, cuts: [], with: Self.decoder).rule == .chunkExtensionTooLong)
    }

    @Test("has trailers within the limits of a header")
    func trailers() {
        let decoder = BodyDecoder(RequestFraming.chunked, limits: HeadLimits(headerBytes: 10, headerCount: 2))
        let fits = bytes("0\r\nA:b\r\nC:\r\n\r\n")
        #expect(Self.relayEveryWay(fits, with: decoder).end == fits.count)
        #expect(Self.relayEveryWay(bytes("0\r\nA:b\r\nC:de\r\n\r\n"), with: decoder).rule == .headerBytes)
        #expect(Self.relayEveryWay(bytes("0\r\nA:\r\nB:\r\nC:\r\n\r\n"), with: decoder).rule == .headerCount)
        #expect(Self.relayEveryWay(bytes("0\r\nAAAAAAAAAAAAAAAAAAAAA"), with: decoder).rule == .headerBytes)
    }

    @Test("in random chunks, extensions and cuts keeps its payload")
    func random() {
        var random = SplitMix64(seed: seed)
        for _ in 0..<300 {
            var payload: [UInt8] = []
            var input: [UInt8] = []
            for _ in 0..<Int.random(in: 0...6, using: &random) {
                let size = Int.random(in: 1...40, using: &random)
                let data = (0..<size).map { _ in UInt8.random(in: 0...255, using: &random) }
                var digits = String(size, radix: 16, uppercase: Bool.random(using: &random))
                if Bool.random(using: &random) { digits = "00" + digits }
                input += bytes(digits + (Bool.random(using: &random) ? ";x=y" : "") + "\r\n") + data + bytes("\r\n")
                payload += data
            }
            input += bytes("0\r\n" + (Bool.random(using: &random) ? "T: v\r\n" : "") + "\r\n")
            let end = input.count
            input += bytes("GET / HTTP/1.1\r\n")
            let cuts = (0..<5).map { _ in Int.random(in: 0...input.count, using: &random) }.sorted()
            #expect(relay(input, cuts: cuts, with: Self.decoder) == Relayed(payload: payload, end: end), "seed \(seed)")
        }
    }

    @Test("of random bytes never ends beyond what was given, however it is cut")
    func garbage() {
        var random = SplitMix64(seed: seed ^ 1)
        let alphabet = bytes("0123456789abcdefABCDEF\r\n\r\n\r\n;: \t\"gX\u{0}\u{80}")
        for _ in 0..<3000 {
            let count = Int.random(in: 0...40, using: &random)
            let input = (0..<count).map { _ in alphabet[Int.random(in: 0..<alphabet.count, using: &random)] }
            let whole = relay(input, cuts: [], with: Self.decoder)
            #expect(relay(input, cuts: Array(0..<input.count), with: Self.decoder) == whole, "seed \(seed)")
        }
    }
}

@Suite("A body")
struct BodyDecoderTests {
    static let limits = HeadLimits()

    @Test("of a known length ends there")
    func length() {
        let decoder = BodyDecoder(RequestFraming.length(5), limits: Self.limits)
        #expect(decoder.remaining == 5)
        #expect(!decoder.isComplete)
        #expect(decoder.endOfInput == .truncated)
        let result = ChunkedBodyTests.relayEveryWay(bytes("HelloNEXT"), with: decoder)
        #expect(result == Relayed(payload: bytes("Hello"), end: 5))
        #expect(ChunkedBodyTests.relayEveryWay(bytes("Hel"), with: decoder) == Relayed(payload: bytes("Hel")))
    }

    @Test("that is none takes no byte")
    func none() {
        for decoder in [
            BodyDecoder(RequestFraming.none, limits: Self.limits),
            BodyDecoder(ResponseFraming.none, limits: Self.limits),
            BodyDecoder(RequestFraming.length(0), limits: Self.limits),
            BodyDecoder(ResponseFraming.length(0), limits: Self.limits),
        ] {
            #expect(decoder.isComplete)
            #expect(decoder.endOfInput == .complete)
            #expect(relay(bytes("NEXT"), cuts: [], with: decoder) == Relayed(end: 0))
        }
    }

    @Test("that the connection ends is complete only then")
    func untilClose() {
        let decoder = BodyDecoder(ResponseFraming.untilClose, limits: Self.limits)
        #expect(!decoder.isComplete)
        #expect(decoder.remaining == nil)
        #expect(decoder.endOfInput == .complete)
        #expect(ChunkedBodyTests.relayEveryWay(bytes("Hello"), with: decoder) == Relayed(payload: bytes("Hello")))
    }

    @Test("in chunks is truncated until its last byte")
    func truncated() {
        let input = bytes("1\r\na\r\n0\r\nT: v\r\n\r\n")
        for length in 0...input.count {
            var decoder = BodyDecoder(ResponseFraming.chunked, limits: Self.limits)
            var offset = 0
            let prefix = Array(input.prefix(length))
            loop: while true {
                switch decoder.next(prefix.span, at: offset) {
                case .data(let range): offset = range.upperBound
                case .needMore, .end, .malformed: break loop
                }
            }
            #expect(decoder.endOfInput == (length == input.count ? .complete : .truncated))
            #expect(decoder.isComplete == (length == input.count))
        }
    }

    @Test("larger than allowed is refused: a known length at once, others when they exceed it")
    func tooLarge() {
        let known = BodyDecoder(RequestFraming.length(6), limits: Self.limits, bytesMax: 5)
        #expect(relay(bytes("Hello!"), cuts: [], with: known) == Relayed(rule: .bodyTooLarge, offset: 0))
        let fits = BodyDecoder(RequestFraming.length(5), limits: Self.limits, bytesMax: 5)
        #expect(relay(bytes("Hello"), cuts: [2], with: fits) == Relayed(payload: bytes("Hello"), end: 5))
        let chunked = BodyDecoder(RequestFraming.chunked, limits: Self.limits, bytesMax: 5)
        let good = bytes("2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n")
        #expect(relay(good, cuts: [], with: chunked) == Relayed(payload: bytes("abcde"), end: good.count))
        let bad = bytes("2\r\nab\r\n4\r\ncdef\r\n0\r\n\r\n")
        #expect(relay(bad, cuts: [], with: chunked).rule == .bodyTooLarge)
        #expect(relay(bad, cuts: Array(0..<bad.count), with: chunked).rule == .bodyTooLarge)
        let close = BodyDecoder(ResponseFraming.untilClose, limits: Self.limits, bytesMax: 5)
        #expect(relay(bytes("Hello!"), cuts: [], with: close).rule == .bodyTooLarge)
        #expect(Rule.bodyTooLarge.status == 413)
    }

    @Test("is asked at any offset without a trap", arguments: [Int.min, -1, 0, 3, 4, Int.max])
    func offsets(_ offset: Int) {
        let input = bytes("1\r\n")
        for framing in [ResponseFraming.none, .length(.max), .chunked, .untilClose] {
            var decoder = BodyDecoder(framing, limits: Self.limits)
            switch decoder.next(input.span, at: offset) {
            case .data(let range): #expect(range.upperBound <= 3)
            case .needMore(let consumed), .end(let consumed): #expect(consumed <= 3)
            case .malformed(let violation): #expect(violation.offset <= 3)
            }
        }
    }
}
