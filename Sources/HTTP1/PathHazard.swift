/// What in a path could make a backend see another path than the one that was routed (RFC 3986 §3.3, §6.2.2).
///
/// The gateway routes by the bytes of a path and does not normalize it: a rewritten path is one more thing on which two
/// parsers disagree, and encoded slashes are legitimate names in some APIs. It refuses what its routes must not see.
package enum PathHazard: UInt8, Sendable {
    case none
    /// A segment `.` or `..`, with any dot written as `%2e`, or followed by a parameter: `/..;x/` is `/../` to servlet
    /// containers. Backends resolve it, and so leave the prefix under which it was routed and limited.
    case dotSegment
    /// `%2f`: a separator to those who decode first and split then. Only where the path is harmless to them, too: dot
    /// segments are looked for on both sides of it.
    case encodedSlash
    /// `\` or `%5c`: a separator to Windows and to the URL parsers of browsers.
    case backslash
    /// `%00`: the end of the path to those who keep it as a C string.
    case encodedNUL
    /// A `%` that no two hexadecimal digits follow, which decoders drop, keep or take together with what follows.
    case malformedEscape

    /// Whether a path with it must not go on: `/api/users/../admin` must not reach what lies beside the service. An
    /// encoded slash alone is a legitimate part of a name, and stays as it was written.
    package var escapes: Bool {
        switch self {
        case .dotSegment, .backslash, .encodedNUL, .malformedEscape: true
        case .none, .encodedSlash: false
        }
    }

    /// The worst hazard in a path without its query.
    package init(path: Span<UInt8>) { self = Self.worst(in: path) }

    private static func worst(in bytes: Span<UInt8>) -> PathHazard {
        // Of the current segment: the dots that it consists of so far, or -1 once it has anything else.
        var dots = 0
        var separatorEncoded = false
        var i = 0
        while i < bytes.count {
            var byte = bytes[i]
            var width = 1
            if byte == UInt8(ascii: "%") {
                guard let decoded = escaped(bytes, at: i) else { return .malformedEscape }
                if decoded == 0 { return .encodedNUL }
                // To whom `%2f` is a separator, `/a%2f../b` and `/..%2fb` are dot segments.
                if decoded == ASCII.slash { separatorEncoded = true }
                // So is `/..%3b/` to those who decode before they cut parameters off.
                byte = decoded
                width = 3
            }
            switch byte {
            case ASCII.slash, ASCII.semicolon:
                if dots == 1 || dots == 2 { return .dotSegment }
                dots = byte == ASCII.slash ? 0 : -1
            case UInt8(ascii: "."):
                if dots >= 0 { dots += 1 }
            case UInt8(ascii: "\\"):
                return .backslash
            default:
                dots = -1
            }
            i += width
        }
        if dots == 1 || dots == 2 { return .dotSegment }
        return separatorEncoded ? .encodedSlash : .none
    }

    /// The byte that the three bytes at `i` stand for.
    private static func escaped(_ bytes: Span<UInt8>, at i: Int) -> UInt8? {
        guard bytes.count - i >= 3 else { return nil }
        let high = hexadecimalValue(bytes[i + 1])
        let low = hexadecimalValue(bytes[i + 2])
        return high == 255 || low == 255 ? nil : high << 4 | low
    }
}
