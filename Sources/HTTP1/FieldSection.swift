// The lines between the first line of a head and its empty line: shared by requests and responses.

package import LinuxIO

/// The bounds of a head; 0 means none.
package struct HeadLimits: Sendable {
    /// Bytes of the first line, its line ending included.
    package var requestLineBytes: Int
    /// Bytes of all field lines together.
    package var headerBytes: Int
    package var headerCount: Int

    package init(requestLineBytes: Int = 8 << 10, headerBytes: Int = 32 << 10, headerCount: Int = 100) {
        self.requestLineBytes = requestLineBytes
        self.headerBytes = headerBytes
        self.headerCount = headerCount
    }
}

/// One header field: where its parts are in the head's bytes.
package struct HeaderField: Equatable, Sendable {
    package let id: FieldName
    /// Whether `Connection` names it, so that it goes no further than here.
    package fileprivate(set) var namedInConnection = false
    private let nameStart: Int32
    private let nameEnd: Int32
    private let valueStart: Int32
    private let valueEnd: Int32
    private let lineEnd: Int32

    init(id: FieldName, name: Range<Int>, value: Range<Int>, lineEnd: Int) {
        self.id = id
        nameStart = Int32(truncatingIfNeeded: name.lowerBound)
        nameEnd = Int32(truncatingIfNeeded: name.upperBound)
        valueStart = Int32(truncatingIfNeeded: value.lowerBound)
        valueEnd = Int32(truncatingIfNeeded: value.upperBound)
        self.lineEnd = Int32(truncatingIfNeeded: lineEnd)
    }

    package var name: Range<Int> { Int(nameStart)..<Int(nameEnd) }
    /// Without the white space around it.
    package var value: Range<Int> { Int(valueStart)..<Int(valueEnd) }
    /// The whole line with its CR LF.
    package var line: Range<Int> { Int(nameStart)..<Int(lineEnd) }
}

/// The answer of a parser.
package enum HeadOutcome: Equatable, Sendable {
    /// The head ends after so many bytes.
    case complete(length: Int)
    case needMore
    case malformed(Violation)
}

/// Where one line ended.
enum LineEnd {
    /// The line's bytes end at `end`; the next line begins at `next`.
    case found(end: Int, next: Int)
    case needMore
    case malformed(Violation)
}

/// Finds the end of the line that begins at `start`. Only CR LF ends a line: a bare LF or CR that one reader takes for
/// an ending and another for content lets a field hide from one of them (RFC 9112 §2.2).
@inline(__always)
func lineEnd(_ bytes: Span<UInt8>, from start: Int) -> LineEnd {
    var i = start
    while i < bytes.count {
        let byte = bytes[i]
        if byte <= carriageReturn {
            if byte == carriageReturn {
                guard i + 1 < bytes.count else { return .needMore }
                guard bytes[i + 1] == lineFeed else { return .malformed(Violation(.lineEnding, at: i)) }
                return .found(end: i, next: i + 2)
            }
            if byte == lineFeed { return .malformed(Violation(.lineEnding, at: i)) }
        }
        i += 1
    }
    return .needMore
}

/// The field lines of a head, with what was learned of them in passing. Reused from one head to the next.
package struct FieldSection: Sendable {
    package private(set) var fields: [HeaderField] = []
    package private(set) var present: FieldSet = []

    // What framing and persistence depend on.
    private(set) var contentLength: Int64?
    private(set) var codingIsChunked = false
    private(set) var connectionClose = false
    private(set) var connectionKeepAlive = false
    private(set) var host: Range<Int>?

    /// Lengths of 19 digits and more may exceed 63 bits; nobody sends an exabyte.
    private static let lengthDigitsMax = 18

    init() { fields.reserveCapacity(32) }

    mutating func reset() {
        fields.removeAll(keepingCapacity: true)
        present = []
        contentLength = nil
        codingIsChunked = false
        connectionClose = false
        connectionKeepAlive = false
        host = nil
    }

    /// Parses lines from `start` up to and with the empty line.
    mutating func parse(_ bytes: Span<UInt8>, from start: Int, limits: HeadLimits, request: Bool) -> HeadOutcome {
        var position = start
        while true {
            guard position < bytes.count else { return bounded(bytes.count - start, limits, at: position) }
            let byte = bytes[position]
            if byte == carriageReturn {
                guard position + 1 < bytes.count else { return .needMore }
                guard bytes[position + 1] == lineFeed else { return .malformed(Violation(.lineEnding, at: position)) }
                let length = position + 2
                if case .malformed(let violation) = bounded(length - start, limits, at: position) {
                    return .malformed(violation)
                }
                markConnectionOptions(bytes)
                return .complete(length: length)
            }
            // A line that begins with white space continues the one before, for some; RFC 9112 §5.2 lets us refuse.
            if byte == space || byte == tab { return .malformed(Violation(.lineFolding, at: position)) }
            switch parseLine(bytes, position, request: request) {
            case .found(_, let next): position = next
            case .needMore: return bounded(bytes.count - start, limits, at: position)
            case .malformed(let violation): return .malformed(violation)
            }
            if limits.headerCount > 0, fields.count > limits.headerCount {
                return .malformed(Violation(.headerCount, at: position))
            }
            if case .malformed(let violation) = bounded(position - start, limits, at: position) {
                return .malformed(violation)
            }
        }
    }

    private func bounded(_ length: Int, _ limits: HeadLimits, at offset: Int) -> HeadOutcome {
        limits.headerBytes > 0 && length > limits.headerBytes
            ? .malformed(Violation(.headerBytes, at: offset)) : .needMore
    }

    private mutating func parseLine(_ bytes: Span<UInt8>, _ start: Int, request: Bool) -> LineEnd {
        var i = start
        var hash = FieldName.hashSeed
        while i < bytes.count, Characters.token.contains(bytes[i]) {
            hash = FieldName.hashStep(hash, bytes[i])
            i += 1
        }
        guard i < bytes.count else { return .needMore }
        guard bytes[i] == UInt8(ascii: ":") else {
            // RFC 9112 §5.1: `Content-Length : 5` is one field to some and another to others.
            let rule: Rule = bytes[i] == space || bytes[i] == tab ? .whitespaceBeforeColon : .fieldName
            return .malformed(Violation(bytes[i] == lineFeed || bytes[i] == carriageReturn ? .lineEnding : rule, at: i))
        }
        guard i > start else { return .malformed(Violation(.fieldName, at: i)) }
        let name = start..<i
        i += 1
        while i < bytes.count, bytes[i] == space || bytes[i] == tab { i += 1 }
        let valueStart = i
        while i < bytes.count, Characters.fieldValue.contains(bytes[i]) { i += 1 }
        guard i < bytes.count else { return .needMore }
        guard bytes[i] == carriageReturn else {
            // RFC 9110 §5.5: NUL, bare LF and their like are where parsers disagree.
            return .malformed(Violation(bytes[i] == lineFeed ? .lineEnding : .fieldValue, at: i))
        }
        guard i + 1 < bytes.count else { return .needMore }
        guard bytes[i + 1] == lineFeed else { return .malformed(Violation(.lineEnding, at: i)) }
        var valueEnd = i
        while valueEnd > valueStart, bytes[valueEnd - 1] == space || bytes[valueEnd - 1] == tab { valueEnd -= 1 }
        let id = FieldName.classify(bytes, name, hash: hash)
        if let violation = note(id, bytes, valueStart..<valueEnd, request: request) { return .malformed(violation) }
        fields.append(HeaderField(id: id, name: name, value: valueStart..<valueEnd, lineEnd: i + 2))
        present.insert(id)
        return .found(end: i, next: i + 2)
    }

    /// Learns what a field says of framing, persistence and host.
    private mutating func note(
        _ id: FieldName, _ bytes: Span<UInt8>, _ value: Range<Int>, request: Bool
    ) -> Violation? {
        switch id {
        case .contentLength:
            // RFC 9112 §6.3: two lengths, even equal ones, are how a request hides in another's body.
            if contentLength != nil { return Violation(.contentLengthRepeated, at: value.lowerBound) }
            guard let length = Self.length(bytes, value) else {
                return Violation(.contentLengthMalformed, at: value.lowerBound)
            }
            contentLength = length
        case .transferEncoding:
            var elements = ListElements(value)
            var any = false
            while let element = elements.next(bytes) {
                any = true
                guard equalsIgnoringCase(bytes, element, Words.chunked) else {
                    // A coding behind chunked, or one we cannot undo, leaves the length of the message unknown.
                    return Violation(codingIsChunked ? .codingNotFinal : .codingUnknown, at: element.lowerBound)
                }
                if codingIsChunked { return Violation(.codingNotFinal, at: element.lowerBound) }
                codingIsChunked = true
            }
            if !any { return Violation(.codingNotFinal, at: value.lowerBound) }
        case .connection:
            var elements = ListElements(value)
            while let element = elements.next(bytes) {
                if equalsIgnoringCase(bytes, element, Words.close) { connectionClose = true }
                if equalsIgnoringCase(bytes, element, Words.keepAlive) { connectionKeepAlive = true }
            }
        case .host:
            guard request else { return nil }
            // RFC 9112 §3.2: with two of them the gateway and the backend may serve two different hosts.
            if host != nil { return Violation(.hostRepeated, at: value.lowerBound) }
            guard Self.isAuthority(bytes, value) else { return Violation(.hostMalformed, at: value.lowerBound) }
            host = value
        case .other, .te, .trailer, .upgrade, .keepAlive, .proxyConnection, .proxyAuthenticate, .proxyAuthorization,
            .proxyAuthenticationInfo, .expect, .via, .maxForwards, .forwarded, .xForwardedFor, .xForwardedHost,
            .xForwardedProto, .xForwardedPort, .xRealIP, .xOriginHost, .authorization, .cookie, .date, .server,
            .contentType:
            break
        }
        return nil
    }

    /// RFC 9110 §8.6: digits only. `+5`, `5, 5`, ` 5` and `0x5` are lengths to some parsers and none to others.
    private static func length(_ bytes: Span<UInt8>, _ value: Range<Int>) -> Int64? {
        guard !value.isEmpty, value.count <= lengthDigitsMax else { return nil }
        var length: Int64 = 0
        for i in value {
            guard bytes[i] >= 0x30, bytes[i] <= 0x39 else { return nil }
            length = length * 10 + Int64(bytes[i] - 0x30)
        }
        return length
    }

    /// `host [":" port]` (RFC 3986 §3.2), not empty.
    static func isAuthority(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Bool {
        guard !range.isEmpty else { return false }
        var i = range.lowerBound
        if bytes[i] == UInt8(ascii: "[") {
            i += 1
            let start = i
            while i < range.upperBound, bytes[i] != UInt8(ascii: "]") {
                let byte = bytes[i]
                let hex = byte >= 0x30 && byte <= 0x3a || byte | 0x20 >= 0x61 && byte | 0x20 <= 0x66
                guard hex || byte == UInt8(ascii: ".") else { return false }
                i += 1
            }
            guard i < range.upperBound, i > start else { return false }
            i += 1
        } else {
            let start = i
            while i < range.upperBound, bytes[i] != UInt8(ascii: ":") {
                let byte = bytes[i]
                guard Characters.authority.contains(byte), byte != UInt8(ascii: "["), byte != UInt8(ascii: "]") else {
                    return false
                }
                i += 1
            }
            guard i > start else { return false }
        }
        guard i < range.upperBound else { return true }
        guard bytes[i] == UInt8(ascii: ":"), range.upperBound - i <= 6 else { return false }
        for j in (i + 1)..<range.upperBound where bytes[j] < 0x30 || bytes[j] > 0x39 { return false }
        return true
    }

    /// Marks the fields that `Connection` names (RFC 9110 §7.6.1).
    private mutating func markConnectionOptions(_ bytes: Span<UInt8>) {
        guard present.contains(.connection) else { return }
        for index in 0..<fields.count where fields[index].id == .connection {
            var elements = ListElements(fields[index].value)
            while let option = elements.next(bytes) { mark(option, bytes) }
        }
    }

    private mutating func mark(_ option: Range<Int>, _ bytes: Span<UInt8>) {
        for index in 0..<fields.count {
            let name = fields[index].name
            guard name.count == option.count, !FieldName.endToEnd.contains(fields[index].id) else { continue }
            var equal = true
            for i in 0..<name.count {
                let a = bytes[name.lowerBound + i]
                let b = bytes[option.lowerBound + i]
                if FieldName.hashStep(0, a) != FieldName.hashStep(0, b) { equal = false }
            }
            if equal { fields[index].namedInConnection = true }
        }
    }

    /// Copies the field lines that go on to the other side, adjacent ones in one piece: all but hop-by-hop fields, those
    /// that `Connection` names, and `dropping`.
    package func copy(from bytes: Span<UInt8>, to output: inout ByteBuffer, dropping: FieldSet) {
        var run = 0..<0
        for field in fields {
            if FieldName.hopByHop.contains(field.id) || field.namedInConnection || dropping.contains(field.id) {
                continue
            }
            let line = field.line
            if line.lowerBound == run.upperBound {
                run = run.lowerBound..<line.upperBound
            } else {
                if !run.isEmpty { output.append(bytes.extracting(run)) }
                run = line
            }
        }
        if !run.isEmpty { output.append(bytes.extracting(run)) }
    }
}
