// Names of fields that are left out of a head, and the leaving out.

package import LinuxIO

package struct FoldedNames: Sendable {
    /// In lower case, with `-` for all that is neither letter nor digit: backends that cannot tell `X_User` from `X-User`
    /// get neither from a client where the gateway sets the one.
    private let names: [[UInt8]]
    /// Prefixes of names, such as `access-control-`.
    private let prefixes: [[UInt8]]

    package init(_ names: [String], prefixes: [String] = []) {
        self.names = names.map { $0.utf8.map(Self.fold) }
        self.prefixes = prefixes.map { $0.utf8.map(Self.fold) }
    }

    package static let none = FoldedNames([])
    static let eTag = FoldedNames(["ETag"])

    private static func fold(_ byte: UInt8) -> UInt8 {
        switch byte {
        case 0x30...0x39, 0x61...0x7a: byte
        case 0x41...0x5a: byte | 0x20
        default: UInt8(ascii: "-")
        }
    }

    package func contains(_ name: Span<UInt8>) -> Bool {
        names.contains { $0.count == name.count && Self.begins(name, with: $0) }
            || prefixes.contains { $0.count <= name.count && Self.begins(name, with: $0) }
    }

    static func areSame(_ left: Span<UInt8>, _ right: Span<UInt8>) -> Bool {
        guard left.count == right.count else { return false }
        for i in 0..<left.count where fold(left[i]) != fold(right[i]) { return false }
        return true
    }

    private static func begins(_ name: Span<UInt8>, with other: [UInt8]) -> Bool {
        for i in other.indices where fold(name[i]) != other[i] { return false }
        return true
    }
}

/// Copies a head line by line, all but the lines of these names. `head` is well formed: a start line and field lines, each
/// with CR LF, with or without the empty line behind them.
///
/// - Parameter weakensTags: whether an ETag becomes a weak one (RFC 9110 §8.8.3.3: a compressed content is another one,
///   equal in meaning and not byte for byte).
package func copyHead(
    _ head: Span<UInt8>, dropping names: FoldedNames, weakensTags: Bool = false, to output: inout ByteBuffer
) {
    var start = 0
    while start < head.count, head[start] != 0x0a { start += 1 }
    start = min(start + 1, head.count)
    output.append(head.extracting(0..<start))
    copyLines(head.extracting(start..<head.count), dropping: names, weakensTags: weakensTags, to: &output)
}

/// The same of field lines alone.
package func copyLines(
    _ lines: Span<UInt8>, dropping names: FoldedNames = .none, weakensTags: Bool, to output: inout ByteBuffer
) {
    var start = 0
    while start < lines.count {
        var nameEnd = start
        var end = start
        while end < lines.count, lines[end] != 0x0a {
            if nameEnd == start, lines[end] == UInt8(ascii: ":") { nameEnd = end }
            end += 1
        }
        end = min(end + 1, lines.count)
        let name = lines.extracting(start..<nameEnd)
        if name.isEmpty {
            output.append(lines.extracting(start..<end))
        } else if !names.contains(name) {
            if weakensTags, FoldedNames.eTag.contains(name) {
                let tag = valueStart(lines, from: nameEnd, to: end)
                output.append(lines.extracting(start..<tag))
                if lines[tag] == UInt8(ascii: "\"") { output.append("W/") }
                output.append(lines.extracting(tag..<end))
            } else {
                output.append(lines.extracting(start..<end))
            }
        }
        start = end
    }
}

/// Behind the colon and the white space; at the line's last byte where nothing is there.
private func valueStart(_ head: Span<UInt8>, from colon: Int, to end: Int) -> Int {
    var i = colon + 1
    while i < end - 1, head[i] == 0x20 || head[i] == 0x09 { i += 1 }
    return min(i, end - 1)
}

/// Adds field lines to a message whose head is whole: those of which it has no line of that name.
///
/// - Parameter lines: whole lines, each with its end.
package func insertLines(_ lines: Span<UInt8>, into message: inout ByteBuffer) {
    let old = message.take()
    var end = 0
    while end < old.count, old.bytes[end] != 0x0d { end = lineEnd(old.bytes, from: end) }
    message.reserve(old.count + lines.count)
    message.append(old.bytes.extracting(0..<end))
    var start = 0
    while start < lines.count {
        let next = lineEnd(lines, from: start)
        let name = lines.extracting(start..<nameEnd(lines, from: start))
        if !hasLine(old.bytes.extracting(0..<end), name) { message.append(lines.extracting(start..<next)) }
        start = next
    }
    message.append(old.bytes.extracting(end..<old.count))
}

/// Whether a head has a line of these names.
package func hasLine(_ head: Span<UInt8>, of names: FoldedNames) -> Bool {
    var start = lineEnd(head, from: 0)
    while start < head.count {
        if names.contains(head.extracting(start..<nameEnd(head, from: start))) { return true }
        start = lineEnd(head, from: start)
    }
    return false
}

private func hasLine(_ head: Span<UInt8>, _ name: Span<UInt8>) -> Bool {
    var start = lineEnd(head, from: 0)
    while start < head.count {
        if FoldedNames.areSame(head.extracting(start..<nameEnd(head, from: start)), name) { return true }
        start = lineEnd(head, from: start)
    }
    return false
}

private func lineEnd(_ bytes: Span<UInt8>, from start: Int) -> Int {
    var end = start
    while end < bytes.count, bytes[end] != 0x0a { end += 1 }
    return min(end + 1, bytes.count)
}

private func nameEnd(_ bytes: Span<UInt8>, from start: Int) -> Int {
    var end = start
    while end < bytes.count, bytes[end] != UInt8(ascii: ":") { end += 1 }
    return end
}
