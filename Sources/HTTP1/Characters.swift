// The character classes of RFC 9110 as 256-bit sets.

/// A set of byte values.
struct ByteSet: Sendable {
    private let words: (UInt64, UInt64, UInt64, UInt64)

    init(_ contains: (UInt8) -> Bool) {
        var words: [UInt64] = [0, 0, 0, 0]
        for byte in UInt8.min...UInt8.max where contains(byte) { words[Int(byte >> 6)] |= 1 << UInt64(byte & 63) }
        self.words = (words[0], words[1], words[2], words[3])
    }

    @inline(__always)
    func contains(_ byte: UInt8) -> Bool {
        let word =
            switch byte >> 6 {
            case 0: words.0
            case 1: words.1
            case 2: words.2
            default: words.3
            }
        return word >> UInt64(byte & 63) & 1 != 0
    }
}

enum Characters {
    /// `tchar` (RFC 9110 §5.6.2).
    static let token = ByteSet { byte in
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
        case UInt8(ascii: "!"), UInt8(ascii: "#"), UInt8(ascii: "$"), UInt8(ascii: "%"), UInt8(ascii: "&"),
            UInt8(ascii: "'"), UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."),
            UInt8(ascii: "^"), UInt8(ascii: "_"), UInt8(ascii: "`"), UInt8(ascii: "|"), UInt8(ascii: "~"):
            true
        default: false
        }
    }

    /// What may stand in a field value: visible characters, space, tab and `obs-text` (RFC 9110 §5.5).
    static let fieldValue = ByteSet { $0 == 0x09 || $0 >= 0x20 && $0 != 0x7f }

    /// What may stand in a request target: visible ASCII but `#`, which begins a fragment that no target has, and
    /// quotes, brackets and their like, which RFC 3986 excludes but clients send.
    static let target = ByteSet { $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "#") }

    /// The authority of a target or of Host: `reg-name`, IP literals and a port (RFC 3986 §3.2), without user info.
    static let authority = ByteSet { byte in
        switch byte {
        case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
        case UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"), UInt8(ascii: "%"),
            UInt8(ascii: "!"), UInt8(ascii: "$"), UInt8(ascii: "&"), UInt8(ascii: "'"), UInt8(ascii: "("),
            UInt8(ascii: ")"), UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: ","), UInt8(ascii: ";"),
            UInt8(ascii: "="), UInt8(ascii: ":"), UInt8(ascii: "["), UInt8(ascii: "]"):
            true
        default: false
        }
    }
}

let carriageReturn: UInt8 = 0x0d
let lineFeed: UInt8 = 0x0a
let space: UInt8 = 0x20
let tab: UInt8 = 0x09

/// Compares with lower-case ASCII letters, ignoring case.
@inline(__always)
func equalsIgnoringCase(_ bytes: Span<UInt8>, _ range: Range<Int>, _ letters: [UInt8]) -> Bool {
    guard range.count == letters.count else { return false }
    for i in 0..<letters.count {
        var byte = bytes[range.lowerBound + i]
        if byte >= 0x41, byte <= 0x5a { byte |= 0x20 }
        if byte != letters[i] { return false }
    }
    return true
}

/// Words that field values are compared with.
enum Words {
    static let close = Array("close".utf8)
    static let keepAlive = Array("keep-alive".utf8)
    static let chunked = Array("chunked".utf8)
    static let expectContinue = Array("100-continue".utf8)
    static let http = Array("http".utf8)
    static let https = Array("https".utf8)
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1), without white space around them; empty ones are skipped.
struct ListElements {
    private let end: Int
    private var position: Int

    init(_ value: Range<Int>) {
        position = value.lowerBound
        end = value.upperBound
    }

    mutating func next(_ bytes: Span<UInt8>) -> Range<Int>? {
        while position < end {
            while position < end, bytes[position] == space || bytes[position] == tab || bytes[position] == 0x2c {
                position += 1
            }
            guard position < end else { return nil }
            let start = position
            while position < end, bytes[position] != 0x2c { position += 1 }
            var stop = position
            while stop > start, bytes[stop - 1] == space || bytes[stop - 1] == tab { stop -= 1 }
            if stop > start { return start..<stop }
        }
        return nil
    }
}
