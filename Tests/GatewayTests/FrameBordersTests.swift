import Primitives
import Testing

@testable import Gateway

@Suite("Borders between the frames of a WebSocket")
struct FrameBordersTests {
    /// A frame as a server, or with `mask` a client, sends it.
    private static func frame(_ opcode: UInt8, _ length: Int, mask: Bool = false) -> [UInt8] {
        let bit: UInt8 = mask ? 0x80 : 0
        var bytes = [opcode]
        switch length {
        case ..<126: bytes.append(UInt8(length) | bit)
        case ..<65_536: bytes += [126 | bit, UInt8(length >> 8), UInt8(length & 0xff)]
        default:
            bytes.append(127 | bit)
            for shift in stride(from: 56, through: 0, by: -8) {
                bytes.append(UInt8(truncatingIfNeeded: UInt64(length) >> UInt64(shift)))
            }
        }
        if mask { bytes += [1, 2, 3, 4] }
        // Bytes that would be read as headers by who loses the border.
        return bytes + [UInt8](repeating: 0x88, count: length)
    }

    private static let lengths = [0, 1, 2, 125, 126, 127, 300, 65_535, 65_536, 70_000]

    @Test("a border is where a frame ends, and nowhere else", arguments: lengths, [false, true])
    func borders(length: Int, mask: Bool) {
        let bytes = Self.frame(0x82, length, mask: mask) + Self.frame(0x81, 3)
        let first = bytes.count - 5
        var borders = FrameBorders()
        #expect(borders.isAtBorder)
        var found: [Int] = []
        for (index, byte) in bytes.enumerated() {
            let one = [byte]
            borders.pass(one.span)
            if borders.isAtBorder { found.append(index + 1) }
        }
        #expect(found == [first, bytes.count])
        var whole = FrameBorders()
        #expect(whole.pass(bytes.span) == bytes.count)
        #expect(whole.isAtBorder && !whole.hasClosed)
    }

    @Test("cut anywhere, the first border behind the cut is found", arguments: 0..<400)
    func cut(seed: UInt64) {
        var generator = SplitMix64(seed: seed)
        var bytes: [UInt8] = []
        var ends: [Int] = []
        for _ in 0..<8 {
            let length = Self.lengths[Int(generator.next() % 8)]
            bytes += Self.frame([0x01, 0x80, 0x82, 0x89][Int(generator.next() % 4)], length)
            ends.append(bytes.count)
        }
        let cut = Int(generator.next() % UInt64(bytes.count))
        var borders = FrameBorders()
        #expect(borders.pass(bytes.span.extracting(0..<cut)) == cut)
        #expect(borders.isAtBorder == (cut == 0 || ends.contains(cut)))
        let rest = borders.pass(bytes.span.extracting(cut..<bytes.count), stopAtBorder: true)
        #expect(borders.isAtBorder)
        #expect(ends.first { $0 > cut } == cut + rest)
    }

    @Test("a close frame is noticed when its header has passed, a ping is none")
    func close() {
        var borders = FrameBorders()
        let ping = Self.frame(0x89, 8)
        borders.pass(ping.span)
        #expect(!borders.hasClosed)
        for part: [UInt8] in [[0x88]] { borders.pass(part.span) }
        #expect(!borders.hasClosed)
        for part: [UInt8] in [[0x02], [0x03, 0xe9]] { borders.pass(part.span) }
        #expect(borders.hasClosed && borders.isAtBorder)
    }

    @Test("a length that no frame has is no border for ever, and no trap")
    func endless() {
        var borders = FrameBorders()
        let header: [UInt8] = [0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]
        let payload = [UInt8](repeating: 0, count: 1_000)
        borders.pass(header.span)
        borders.pass(payload.span)
        #expect(!borders.isAtBorder)
    }

    @Test("websocket is one of the names, whatever else is listed", arguments: [(0, false), (1, true)])
    func name(place: Int, isWebSocket: Bool) {
        #expect(Upgrades(["other", "websocket"]).isWebSocket(place) == isWebSocket)
    }
}
