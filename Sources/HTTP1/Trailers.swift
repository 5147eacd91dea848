// Trailer fields on their way through (RFC 9110 §6.5).

package import LinuxIO

/// Appends the trailer lines that may be passed on; the others are left out. `lines` are whole lines that a
/// `ChunkedDecoder` has checked.
///
/// RFC 9110 §6.5.1: framing, routing, authentication, and what says how to handle a message or its content, come too late
/// behind it, and a recipient that merges them into the header all the same would believe them. What the gateway itself
/// acts upon or sets is among them, in any spelling that CGI cannot tell apart; so are the names of the configuration's
/// choice.
package func copyTrailers(
    _ lines: Span<UInt8>, without names: GuardedNames = .none, to output: inout ByteBuffer
) {
    var start = 0
    while start < lines.count {
        var nameEnd = start
        while nameEnd < lines.count, isToken(lines[nameEnd]) { nameEnd += 1 }
        var end = nameEnd
        while end < lines.count, lines[end] != ASCII.lineFeed { end += 1 }
        end = min(end + 1, lines.count)
        if mayTrail(lines.extracting(start..<nameEnd)), !names.contains(lines, start..<nameEnd) {
            output.append(lines.extracting(start..<end))
        }
        start = end
    }
}

private func mayTrail(_ name: Span<UInt8>) -> Bool {
    var key = NameKey()
    for i in name.indices { key.push(name[i]) }
    let table = FieldNameTable.shared
    guard table.name(for: key) == .other, table.name(for: key.hyphenated) == .other else { return false }
    for forbidden in forbiddenTrailers where begins(name, with: forbidden) { return false }
    return true
}

/// Names in lower case beside those of `FieldName`; one that ends in a hyphen stands for all that begin so.
private let forbiddenTrailers: [[UInt8]] = [
    "accept", "access-control-", "age", "allow", "alt-svc", "authentication-info", "content-disposition",
    "content-encoding", "content-language", "content-location", "content-range", "content-security-policy",
    "early-data",
    "expires", "if-", "origin", "pragma", "proxy-", "range", "sec-", "strict-transport-security", "transfer-", "vary",
    "warning", "www-authenticate", "x-forwarded-", "x-http-method", "x-http-method-", "x-original-", "x-rewrite-",
].map { Array($0.utf8) }

/// Whether a name is this one, or begins with it where it ends in a hyphen. `_`, `.` and the like count as `-`.
private func begins(_ name: Span<UInt8>, with other: [UInt8]) -> Bool {
    guard name.count == other.count || name.count > other.count && other.last == UInt8(ascii: "-") else { return false }
    for i in other.indices {
        let lower = name[i] | 0x20
        let byte = isDigit(name[i]) || lower &- 0x61 < 26 ? lower : UInt8(ascii: "-")
        guard byte == other[i] else { return false }
    }
    return true
}
