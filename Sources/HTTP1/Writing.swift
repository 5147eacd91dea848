// Pieces of messages that the gateway writes itself.

package import LinuxIO

extension ByteBuffer {
    /// The line before a chunk's bytes; CR LF goes behind them.
    package mutating func appendChunkHeader(_ size: Int) {
        append(hexadecimal: UInt64(size.magnitude))
        append("\r\n")
    }

    /// The last chunk and an empty trailer section.
    package mutating func appendLastChunk() { append("0\r\n\r\n") }

    /// The status line of an answer of the gateway's own, with the registered phrase (RFC 9110 §15).
    package mutating func appendStatusLine(_ status: Int) {
        append("HTTP/1.1 ")
        append(decimal: status)
        append(" ")
        append(reasonPhrase(status))
        append("\r\n")
    }
}

/// The phrases of the statuses that a gateway gives by itself.
package func reasonPhrase(_ status: Int) -> StaticString {
    switch status {
    case 200: "OK"
    case 400: "Bad Request"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 408: "Request Timeout"
    case 411: "Length Required"
    case 413: "Content Too Large"
    case 414: "URI Too Long"
    case 417: "Expectation Failed"
    case 421: "Misdirected Request"
    case 426: "Upgrade Required"
    case 429: "Too Many Requests"
    case 431: "Request Header Fields Too Large"
    case 500: "Internal Server Error"
    case 501: "Not Implemented"
    case 502: "Bad Gateway"
    case 503: "Service Unavailable"
    case 504: "Gateway Timeout"
    case 505: "HTTP Version Not Supported"
    default: "Unknown"
    }
}

/// What in a path could lead a backend elsewhere than where the gateway routed it.
package enum PathHazard: Equatable, Sendable {
    case none
    /// `.` or `..` as a segment, plain or encoded.
    case dotSegment
    /// An encoded slash or backslash, or a plain backslash: some servers take them for borders of segments.
    case encodedSlash
}

/// Looks for hazards in a path without its query (RFC 3986 §3.3, §5.2.4).
package func pathHazard(_ path: Span<UInt8>) -> PathHazard {
    // One pass; a segment is a dot segment as long as all it held so far were one or two dots.
    var dots = 0
    var onlyDots = true
    var i = 0
    while i < path.count {
        var byte = path[i]
        var length = 1
        if byte == UInt8(ascii: "%"), i + 2 < path.count {
            let code = (path[i + 1], path[i + 2] | 0x20)
            if code.0 == UInt8(ascii: "2"), code.1 == UInt8(ascii: "e") {
                byte = UInt8(ascii: ".")
                length = 3
            } else if code.0 == UInt8(ascii: "2") && code.1 == UInt8(ascii: "f")
                || code.0 == UInt8(ascii: "5") && code.1 == UInt8(ascii: "c")
            {
                return .encodedSlash
            }
        }
        if byte == UInt8(ascii: "\\") { return .encodedSlash }
        if byte == UInt8(ascii: "/"), length == 1 {
            if onlyDots, dots == 1 || dots == 2 { return .dotSegment }
            dots = 0
            onlyDots = true
        } else if byte == UInt8(ascii: ".") {
            dots += 1
        } else {
            onlyDots = false
        }
        i += length
    }
    return onlyDots && (dots == 1 || dots == 2) ? .dotSegment : .none
}
