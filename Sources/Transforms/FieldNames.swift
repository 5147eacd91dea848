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

/// Goes from line to line of a head, or of field lines alone. They are well formed: each ends with CR LF, with or without
/// the empty line behind them.
package struct LineWalk {
    /// The line where it stands, with its end.
    package private(set) var line = 0..<0
    /// Where the line's colon is; its start where it has none, as the empty line.
    private var colon = 0

    package init() {}

    /// At the first field line of a head.
    package init(behindStartLineOf head: Span<UInt8>) { _ = advance(in: head) }

    package var name: Range<Int> { line.lowerBound..<colon }

    /// Without the white space around it.
    package func value(in bytes: Span<UInt8>) -> Range<Int> {
        func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
        var (start, end) = (min(colon + 1, line.upperBound), line.upperBound)
        while end > start, bytes[end - 1] == 0x0a || bytes[end - 1] == 0x0d || isBlank(bytes[end - 1]) { end -= 1 }
        while start < end, isBlank(bytes[start]) { start += 1 }
        return start..<end
    }

    /// Goes to the next line; false where there is none.
    package mutating func advance(in bytes: Span<UInt8>) -> Bool {
        let start = line.upperBound
        guard start < bytes.count else { return false }
        colon = start
        var end = start
        while end < bytes.count, bytes[end] != 0x0a {
            if colon == start, bytes[end] == UInt8(ascii: ":") { colon = end }
            end += 1
        }
        line = start..<min(end + 1, bytes.count)
        return true
    }
}

/// Copies a head line by line, all but the lines of these names.
///
/// - Parameter weakensTags: whether an ETag becomes a weak one (RFC 9110 §8.8.3.3: a compressed content is another one,
///   equal in meaning and not byte for byte).
package func copyHead(
    _ head: Span<UInt8>, dropping names: FoldedNames, weakensTags: Bool = false, to output: inout ByteBuffer
) {
    let walk = LineWalk(behindStartLineOf: head)
    output.append(head.extracting(walk.line))
    copyLines(head, from: walk, dropping: names, weakensTags: weakensTags, to: &output)
}

/// The same of field lines alone.
package func copyLines(_ lines: Span<UInt8>, weakensTags: Bool, to output: inout ByteBuffer) {
    copyLines(lines, from: LineWalk(), dropping: .none, weakensTags: weakensTags, to: &output)
}

private func copyLines(
    _ bytes: Span<UInt8>, from walk: LineWalk, dropping names: FoldedNames, weakensTags: Bool,
    to output: inout ByteBuffer
) {
    var walk = walk
    while walk.advance(in: bytes) {
        let name = bytes.extracting(walk.name)
        if names.contains(name) { continue }
        guard weakensTags, FoldedNames.eTag.contains(name) else {
            output.append(bytes.extracting(walk.line))
            continue
        }
        let tag = walk.value(in: bytes)
        output.append(bytes.extracting(walk.line.lowerBound..<tag.lowerBound))
        if !tag.isEmpty, bytes[tag.lowerBound] == UInt8(ascii: "\"") { output.append("W/") }
        output.append(bytes.extracting(tag.lowerBound..<walk.line.upperBound))
    }
}

/// Adds field lines to a message whose head is whole: those of which it has no line of that name.
///
/// - Parameter lines: whole lines, each with its end.
package func insertLines(_ lines: Span<UInt8>, into message: inout ByteBuffer) {
    let old = message.take()
    var walk = LineWalk(behindStartLineOf: old.bytes)
    while walk.advance(in: old.bytes), old.bytes[walk.line.lowerBound] != 0x0d {}
    // Without the empty line.
    let head = old.bytes.extracting(0..<walk.line.lowerBound)
    message.reserve(old.count + lines.count)
    message.append(head)
    var added = LineWalk()
    while added.advance(in: lines) {
        let name = lines.extracting(added.name)
        if !hasLine(head, name) { message.append(lines.extracting(added.line)) }
    }
    message.append(old.bytes.extracting(head.count..<old.count))
}

/// Whether a head has a line of these names.
package func hasLine(_ head: Span<UInt8>, of names: FoldedNames) -> Bool {
    var walk = LineWalk(behindStartLineOf: head)
    while walk.advance(in: head) {
        if names.contains(head.extracting(walk.name)) { return true }
    }
    return false
}

private func hasLine(_ head: Span<UInt8>, _ name: Span<UInt8>) -> Bool {
    var walk = LineWalk(behindStartLineOf: head)
    while walk.advance(in: head) {
        if FoldedNames.areSame(head.extracting(walk.name), name) { return true }
    }
    return false
}
