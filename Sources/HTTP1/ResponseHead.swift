// The head of a response (RFC 9112 §4). Backends are no more trusted than clients: what is ambiguous is a 502.

package import LinuxIO

/// How long a response's body is (RFC 9112 §6.3).
package enum ResponseFraming: Equatable, Sendable {
    case none
    case length(Int64)
    case chunked
    /// Until the backend closes the connection.
    case untilClose
}

/// One parsed response head. Reuse it: its storage serves the next one.
package struct ResponseHead: Sendable {
    /// 100...599, or up to 999 from backends that use codes of their own.
    package private(set) var status = 0
    package private(set) var reason = 0..<0
    package private(set) var version = HTTPVersion.http11
    package private(set) var section = FieldSection()

    package init() {}

    package var fields: [HeaderField] { section.fields }
    package func contains(_ name: FieldName) -> Bool { section.present.contains(name) }

    package var keepAlive: Bool {
        if section.connectionClose { return false }
        return version == .http11 || section.connectionKeepAlive
    }

    /// Parses a head from the beginning of `bytes`; see `RequestHead.parse`.
    package mutating func parse(_ bytes: Span<UInt8>, limits: HeadLimits) -> HeadOutcome {
        let next: Int
        switch parseLine(bytes, limits) {
        case .found(_, let position): next = position
        case .needMore: return .needMore
        case .malformed(let violation): return .malformed(violation)
        }
        section.reset()
        switch section.parse(bytes, from: next, limits: limits, request: false) {
        case .complete(let length):
            if section.present.contains(.transferEncoding) {
                // RFC 9112 §6.1: a response that is framed twice may be split by whoever reads it next.
                if section.contentLength != nil { return .malformed(Violation(.lengthAndCoding, at: length)) }
                if version == .http10 { return .malformed(Violation(.codingInHTTP10, at: length)) }
            }
            return .complete(length: length)
        case .needMore: return .needMore
        case .malformed(let violation): return .malformed(violation)
        }
    }

    private mutating func parseLine(_ bytes: Span<UInt8>, _ limits: HeadLimits) -> LineEnd {
        let afterVersion: Int
        switch HTTPVersion.parse(bytes, 0) {
        case .found(let parsed, let end):
            version = parsed
            afterVersion = end
        case .needMore: return .needMore
        case .malformed(let violation): return .malformed(violation)
        }
        guard afterVersion < bytes.count else { return .needMore }
        guard bytes[afterVersion] == space else { return .malformed(Violation(.statusLine, at: afterVersion)) }
        var code = 0
        for i in (afterVersion + 1)..<(afterVersion + 4) {
            guard i < bytes.count else { return .needMore }
            guard isDigit(bytes[i]) else { return .malformed(Violation(.statusLine, at: i)) }
            code = code * 10 + Int(bytes[i] - 0x30)
        }
        guard code >= 100 else { return .malformed(Violation(.statusLine, at: afterVersion + 1)) }
        status = code
        var i = afterVersion + 4
        guard i < bytes.count else { return .needMore }
        // The space before an empty reason is often forgotten.
        if bytes[i] == space { i += 1 } else if bytes[i] != carriageReturn {
            return .malformed(Violation(.statusLine, at: i))
        }
        let start = i
        while i < bytes.count, Characters.fieldValue.contains(bytes[i]) { i += 1 }
        if limits.requestLineBytes > 0, i > limits.requestLineBytes {
            return .malformed(Violation(.statusLine, at: i))
        }
        guard i < bytes.count else { return .needMore }
        guard bytes[i] == carriageReturn else { return .malformed(Violation(.lineEnding, at: i)) }
        guard i + 1 < bytes.count else { return .needMore }
        guard bytes[i + 1] == lineFeed else { return .malformed(Violation(.lineEnding, at: i)) }
        reason = start..<i
        return .found(end: i, next: i + 2)
    }

    /// RFC 9112 §6.3: which body follows depends on the request as well.
    package func framing(requestMethod: Method) -> ResponseFraming {
        if requestMethod == .head || status < 200 || status == 204 || status == 304 { return .none }
        if section.present.contains(.transferEncoding) { return .chunked }
        if let length = section.contentLength { return .length(length) }
        return .untilClose
    }

    /// Copies the field lines that go on to the client; see `FieldSection.copy`.
    package func copyFields(from bytes: Span<UInt8>, to output: inout ByteBuffer, dropping: FieldSet) {
        section.copy(from: bytes, to: &output, dropping: dropping)
    }
}
