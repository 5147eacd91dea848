// What a backend says of limits of its own, beside what the gateway says of its: items of the same two lists. An item is
// kept where its name tells whose it is.

/// Items of a backend's `RateLimit-Policy` and `RateLimit` that go on to the client behind the gateway's.
package struct OtherLimits: Sendable {
    private(set) var policies: [[UInt8]] = []
    private(set) var limits: [[UInt8]] = []

    package init() {}

    /// Takes the items of a line `RateLimit-Policy` whose names no policy of the gateway has.
    package mutating func takePolicies(of line: Span<UInt8>, beside own: RateLimitFields) {
        policies += Self.items(of: line, beside: own)
    }

    /// The same of a line `RateLimit`.
    package mutating func takeLimits(of line: Span<UInt8>, beside own: RateLimitFields) {
        limits += Self.items(of: line, beside: own)
    }

    private static func items(of line: Span<UInt8>, beside own: RateLimitFields) -> [[UInt8]] {
        // Behind what is no such list the client would not believe the gateway's items either (RFC 9651 §4.2).
        var reader = NamedItems(line)
        guard let items = reader.list(line) else { return [] }
        return items.compactMap { item in
            own.names(line.extracting(item.name)) ? nil : item.all.map { line[$0] }
        }
    }
}

/// Reads a list of Strings with parameters (RFC 9651 §3.1), as these fields are. Older drafts wrote numbers and a dictionary
/// there, which name nobody.
private struct NamedItems {
    private var at = 0
    private let end: Int

    init(_ bytes: Span<UInt8>) { end = bytes.count }

    /// `nil` where it is anything else.
    mutating func list(_ bytes: Span<UInt8>) -> [(name: Range<Int>, all: Range<Int>)]? {
        var items: [(name: Range<Int>, all: Range<Int>)] = []
        while true {
            let start = at
            guard string(bytes) else { return nil }
            let name = start + 1..<at - 1
            guard parameters(bytes) else { return nil }
            items.append((name, start..<at))
            skip(bytes) { $0 == 0x20 || $0 == 0x09 }
            if at == end { return items }
            guard take(",", bytes) else { return nil }
            skip(bytes) { $0 == 0x20 || $0 == 0x09 }
        }
    }

    private mutating func parameters(_ bytes: Span<UInt8>) -> Bool {
        while take(";", bytes) {
            skip(bytes) { $0 == 0x20 }
            guard at < end, Self.isLower(bytes[at]) || bytes[at] == UInt8(ascii: "*") else { return false }
            skip(bytes) { Self.isLower($0) || Self.isDigit($0) || [0x5f, 0x2d, 0x2e, 0x2a].contains($0) }
            if take("=", bytes), !value(bytes) { return false }
        }
        return true
    }

    private mutating func value(_ bytes: Span<UInt8>) -> Bool {
        guard at < end else { return false }
        switch bytes[at] {
        case UInt8(ascii: "\""): return string(bytes)
        case UInt8(ascii: "-"), 0x30...0x39: return number(bytes, mayBeDecimal: true)
        case UInt8(ascii: "@"):
            at += 1
            return number(bytes, mayBeDecimal: false)
        case UInt8(ascii: "?"):
            at += 1
            return take("0", bytes) || take("1", bytes)
        case UInt8(ascii: ":"):
            at += 1
            skip(bytes) { Self.isLetter($0) || Self.isDigit($0) || [0x2b, 0x2f, 0x3d].contains($0) }
            return take(":", bytes)
        case UInt8(ascii: "*"), 0x41...0x5a, 0x61...0x7a:
            skip(bytes) { Self.isLetter($0) || Self.isDigit($0) || Self.tokenMarks.contains($0) }
            return true
        default: return false
        }
    }

    private mutating func number(_ bytes: Span<UInt8>, mayBeDecimal: Bool) -> Bool {
        _ = take("-", bytes)
        let whole = skip(bytes, Self.isDigit)
        guard whole > 0 else { return false }
        guard mayBeDecimal, take(".", bytes) else { return whole <= 15 }
        return whole <= 12 && (1...3).contains(skip(bytes, Self.isDigit))
    }

    private mutating func string(_ bytes: Span<UInt8>) -> Bool {
        guard take("\"", bytes) else { return false }
        while at < end {
            let byte = bytes[at]
            at += 1
            if byte == UInt8(ascii: "\"") { return true }
            guard (0x20...0x7e).contains(byte) else { return false }
            if byte == UInt8(ascii: "\\"), !take("\"", bytes), !take("\\", bytes) { return false }
        }
        return false
    }

    private mutating func take(_ byte: Unicode.Scalar, _ bytes: Span<UInt8>) -> Bool {
        guard at < end, bytes[at] == UInt8(ascii: byte) else { return false }
        at += 1
        return true
    }

    @discardableResult
    private mutating func skip(_ bytes: Span<UInt8>, _ belongs: (UInt8) -> Bool) -> Int {
        let start = at
        while at < end, belongs(bytes[at]) { at += 1 }
        return at - start
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
    private static func isLower(_ byte: UInt8) -> Bool { (0x61...0x7a).contains(byte) }
    private static func isLetter(_ byte: UInt8) -> Bool { isLower(byte | 0x20) }
    private static let tokenMarks = Array("!#$%&'*+-.^_`|~:/".utf8)
}
