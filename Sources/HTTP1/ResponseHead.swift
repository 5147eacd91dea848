/// How the body of a response is framed (RFC 9112 §6.3).
public enum ResponseFraming: Equatable, Sendable {
    case none
    case length(Int64)
    case chunked
    /// To the end of the connection.
    case untilClose
}

/// The head of a response (RFC 9112 §4 and §5), parsed as `RequestHead` is: reusable, no state between calls, strict.
/// A backend that answers ambiguously is as dangerous as a client that asks so: what it sends behind the response that
/// we saw would be taken for the answer to somebody else's request.
package struct ResponseHead: Sendable {
    /// 100...999.
    package private(set) var status = 0
    /// The reason phrase; may be empty.
    package private(set) var reason = 0..<0
    package private(set) var version = HTTPVersion.http11
    package private(set) var fields = HeaderFields()
    /// Whether the backend lets the connection stay open (RFC 9112 §9.3). `isReusable` also asks the framing.
    package private(set) var keepAlive = false
    /// The value of the first Upgrade line, where HTTP/1.1 and the `upgrade` option make it count (RFC 9110 §7.8). Further
    /// lines go on with its list (§5.3).
    package private(set) var upgrade: Range<Int>?
    /// Bytes of the head, including the empty line that ends it.
    package private(set) var length = 0
    /// The length to write anew where it was written with leading zeros, else -1 (`FieldSection.respelledLength`).
    package private(set) var respelledLength: Int64 = -1
    /// What the fields say, before status and method are asked.
    private var announced = ResponseFraming.untilClose

    package init() {}

    /// The length that is announced, also where no body follows, as behind a HEAD.
    package var announcedLength: Int64? { if case .length(let length) = announced { length } else { nil } }

    /// Exchanges the fields, and with them their storage.
    package mutating func swapFields(_ other: inout HeaderFields) { swap(&fields, &other) }

    /// Reads one head from the beginning of `bytes`.
    package mutating func parse(_ bytes: Span<UInt8>, limits: HeadLimits) -> HeadOutcome {
        fields.removeAll()
        let fieldsStart: Int
        switch parseStatusLine(bytes, limits) {
        case .next(let offset): fieldsStart = offset
        case .needMore: return .needMore
        case .malformed(let violation): return .malformed(violation)
        }
        var section = FieldSection(isRequest: false)
        switch section.parse(bytes, from: fieldsStart, limits: limits, into: &fields) {
        case .next(let offset): length = offset
        case .needMore: return .needMore
        case .malformed(let violation): return .malformed(violation)
        }
        if let rule = section.framingViolation(version: version) {
            return .malformed(Violation(rule, at: fields.first(.transferEncoding)?.line.lowerBound ?? fieldsStart))
        }
        announced =
            if section.isChunked {
                .chunked
            } else if section.contentLength >= 0 {
                .length(section.contentLength)
            } else {
                .untilClose
            }
        respelledLength = section.respelledLength
        keepAlive = section.persists(version: version)
        upgrade = section.upgrade && version == .http11 ? fields.first(.upgrade)?.value : nil
        return .complete(length: length)
    }

    /// The framing of the body, in the order of RFC 9112 §6.3. For 101 it is none: what follows is another protocol.
    package func framing(requestMethod: Method) -> ResponseFraming {
        if requestMethod == .head || status < 200 || status == 204 || status == 304 { return .none }
        if requestMethod == .connect, status < 300 { return .none }
        return announced
    }

    /// Whether the connection may carry another request when the body has ended. Not where the end of the connection
    /// ends the body, after a switch of protocols, or where a response that has no body announces one all the same
    /// (RFC 9112 §6.1, RFC 9110 §8.6): some servers send it, and it would be read as the next response.
    package func isReusable(requestMethod: Method) -> Bool {
        guard keepAlive, status != 101 else { return false }
        if status < 200 || status == 204 {
            switch announced {
            case .none, .untilClose, .length(0): return true
            case .length, .chunked: return false
            }
        }
        return framing(requestMethod: requestMethod) != .untilClose
    }
}

// The status line
extension ResponseHead {
    private mutating func parseStatusLine(_ bytes: Span<UInt8>, _ limits: HeadLimits) -> Scan {
        let end = min(bytes.count, limits.startLineEnd(from: 0))
        var i: Int
        switch parseVersion(bytes, from: 0, end: end, .malformedStatusLine, limit: .startLineTooLong) {
        case .version(let version, let offset):
            self.version = version
            i = offset
        case .stopped(let scan): return scan
        }
        guard i < end else { return .ranOut(at: end, of: bytes, limit: .startLineTooLong) }
        guard bytes[i] == ASCII.space else { return .refuse(.malformedStatusLine, at: i) }
        i += 1

        status = 0
        let digitsEnd = i + 3
        while i < digitsEnd {
            guard i < end else { return .ranOut(at: end, of: bytes, limit: .startLineTooLong) }
            guard isDigit(bytes[i]) else { return .refuse(.malformedStatusLine, at: i) }
            status = status * 10 + Int(bytes[i] &- 0x30)
            // RFC 9110 §15: the first digit is the class of the response; there is no class 0.
            guard status > 0 else { return .refuse(.malformedStatusLine, at: i) }
            i += 1
        }
        guard i < end else { return .ranOut(at: end, of: bytes, limit: .startLineTooLong) }
        // RFC 9112 §4 wants a space even before an empty reason; servers that leave it out are harmless.
        if bytes[i] == ASCII.space {
            i += 1
        } else if bytes[i] != ASCII.carriageReturn {
            return .refuse(bytes[i] == ASCII.lineFeed ? .bareLineFeed : .malformedStatusLine, at: i)
        }
        let reasonStart = i
        while i < end, isFieldValue(bytes[i]) { i += 1 }
        guard i < end else { return .ranOut(at: end, of: bytes, limit: .startLineTooLong) }
        guard bytes[i] == ASCII.carriageReturn else {
            return .refuse(bytes[i] == ASCII.lineFeed ? .bareLineFeed : .malformedStatusLine, at: i)
        }
        reason = reasonStart..<i
        i += 1
        guard i < end else { return .ranOut(at: end, of: bytes, limit: .startLineTooLong) }
        guard bytes[i] == ASCII.lineFeed else { return .refuse(.bareCarriageReturn, at: i - 1) }
        return .next(i + 1)
    }
}
