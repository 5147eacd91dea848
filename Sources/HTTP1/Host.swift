/// Whether `range` holds `uri-host [":" port]` (RFC 9110 §7.2, RFC 3986 §3.2.2).
///
/// A name is letters, digits, `-`, `.`, `_` and `~`. The grammar also has percent-escapes and delimiters such as `,`
/// and `;`, which no DNS name contains and with which one host reads as two (cache poisoning); user information
/// (`user@host`) is refused for the same reason (RFC 9110 §4.2.4). An empty host is invalid (§4.2.1). Within brackets
/// only the alphabet of IPv6 is checked.
func isHost(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Bool {
    var i = range.lowerBound
    let end = range.upperBound
    guard i < end else { return false }
    if bytes[i] == UInt8(ascii: "[") {
        i += 1
        let start = i
        while i < end, isAddressByte(bytes[i]) { i += 1 }
        guard i > start, i < end, bytes[i] == UInt8(ascii: "]") else { return false }
        i += 1
    } else {
        let start = i
        while i < end, isNameByte(bytes[i]) { i += 1 }
        guard i > start else { return false }
    }
    return i == end || isPort(bytes, i..<end)
}

/// A colon and up to five digits that make at most 65535; RFC 3986 §3.2.3 allows none.
private func isPort(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Bool {
    guard bytes[range.lowerBound] == ASCII.colon, range.count <= 6 else { return false }
    var port = 0
    var i = range.lowerBound + 1
    while i < range.upperBound {
        guard isDigit(bytes[i]) else { return false }
        port = port &* 10 &+ Int(bytes[i] &- 0x30)
        i &+= 1
    }
    return port <= 65_535
}

/// Letters, digits and `-._~`, by the same kind of mask as `isToken`.
@inline(__always)
private func isNameByte(_ byte: UInt8) -> Bool {
    let mask: UInt64 = byte & 0x40 == 0 ? 0x03ff_6000_0000_0000 : 0x47ff_fffe_87ff_fffe
    return byte < 0x80 && (mask >> UInt64(byte & 63)) & 1 != 0
}

private func isAddressByte(_ byte: UInt8) -> Bool {
    hexadecimalValue(byte) != 255 || byte == ASCII.colon || byte == 0x2e
}
