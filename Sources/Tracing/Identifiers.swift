// Names that are made for requests: random, never zero, and in hexadecimal where they are written.

package import LinuxIO
import Primitives

/// 16 bytes: which trace, or which request.
package struct WideID: Equatable, Sendable {
    package var high: UInt64
    package var low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    package var isZero: Bool { high | low == 0 }
}

/// Where names come from. They are no secrets, only unlike each other: two generators of 64 bits with seeds of their own,
/// so that two workers of a whole fleet never walk the same way.
package struct IDSource: Sendable {
    private var first: SplitMix64
    private var second: SplitMix64

    /// - Parameters: two random numbers.
    package init(seeds first: UInt64, _ second: UInt64) {
        self.first = SplitMix64(seed: first)
        self.second = SplitMix64(seed: second)
    }

    package mutating func wide() -> WideID {
        let id = WideID(high: first.next(), low: second.next())
        // W3C Trace Context §3.2.2.3: all zero is no name.
        return id.isZero ? WideID(high: 1, low: 0) : id
    }

    package mutating func narrow() -> UInt64 { max(1, first.next() ^ second.next()) }
}

extension ByteBuffer {
    /// 32 digits.
    package mutating func append(_ id: WideID) {
        append(hexadecimal: id.high, width: 16)
        append(hexadecimal: id.low, width: 16)
    }

    /// 16 digits.
    package mutating func append(narrow id: UInt64) { append(hexadecimal: id, width: 16) }
}

/// The name of a request as somebody else has given it.
package enum RequestID {
    /// Room for two UUIDs and a prefix, and a line of a log that people still read.
    package static let bytesMax = 128

    /// Whether it can be kept: of letters, digits and a few signs, none of which means anything to a log, to JSON, to a
    /// shell or to HTML.
    package static func isKept(_ text: Span<UInt8>) -> Bool {
        guard text.count > 0, text.count <= bytesMax else { return false }
        for i in text.indices {
            switch text[i] {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: continue
            case UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: ":"), UInt8(ascii: "/"),
                UInt8(ascii: "+"), UInt8(ascii: "="), UInt8(ascii: "@"), UInt8(ascii: "~"):
                continue
            default: return false
            }
        }
        return true
    }
}
