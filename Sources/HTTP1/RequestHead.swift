// The head of a request (RFC 9112 §3 and §5) as offsets into the bytes in which it was found.
//
// Parsing keeps no state between calls: with all bytes so far, it says complete, need more, or which rule is broken
// where. A resumable parser would save re-reading heads that arrive in pieces, which few do; `HeadProgress` makes
// those cheap. The verdict is that of the first offending byte, so every cut of the same bytes gets the same one.

package enum HeadOutcome: Equatable, Sendable {
    /// The head is the first `length` bytes, and everything about it is known.
    case complete(length: Int)
    case needMore
    case malformed(Violation)
}

/// The four forms of RFC 9112 §3.2 without authority-form, which belongs to CONNECT and is refused.
public enum TargetForm: UInt8, Sendable {
    case origin, absolute, asterisk
}

/// How the body of a request is framed (RFC 9112 §6.3).
public enum RequestFraming: Equatable, Sendable {
    case none
    case length(Int64)
    case chunked
}

/// The storage of `fields` can be used again, so that after the first few requests none is allocated. All ranges
/// are offsets into the span that was parsed, and mean something only after `complete`.
package struct RequestHead: Sendable {
    package private(set) var method = Method.other
    package private(set) var methodBytes = 0..<0
    /// The whole request target.
    package private(set) var target = 0..<0
    package private(set) var form = TargetForm.origin
    /// The path of the target, without the query. Empty in asterisk-form, and in absolute-form where the path is `/`
    /// but was not written (RFC 9110 §4.2.3); `appendRequestLine` writes it.
    package private(set) var path = 0..<0
    /// The path and, with its `?`, the query; the whole target in asterisk-form.
    package private(set) var pathAndQuery = 0..<0
    /// Host and port: of an absolute target, which overrides the Host field (RFC 9112 §3.2.2), else of that field.
    /// Empty only in an HTTP/1.0 request with neither.
    package private(set) var authority = 0..<0
    /// Whether the target is an `https` URI. What that means on a connection without TLS is the server's to decide.
    package private(set) var isHTTPS = false
    package private(set) var version = HTTPVersion.http11
    package internal(set) var fields = HeaderFields()
    package private(set) var framing = RequestFraming.none
    /// The length to write anew where it was written with leading zeros, else -1 (`FieldSection.respelledLength`).
    package private(set) var respelledLength: Int64 = -1
    /// Whether the client wants the connection to stay open (RFC 9112 §9.3).
    package private(set) var keepAlive = false
    /// Whether the client waits for 100 before it sends the body (RFC 9110 §10.1.1).
    package private(set) var expectsContinue = false
    /// Whether the client wants to see trailer fields (RFC 9110 §10.1.4).
    package private(set) var acceptsTrailers = false
    /// The value of the first Upgrade line, where HTTP/1.1 and the `upgrade` option make it count (RFC 9110 §7.8). Further
    /// lines go on with its list (§5.3).
    package private(set) var upgrade: Range<Int>?
    /// Bytes of the head, including an empty line before it and the one that ends it.
    package private(set) var length = 0

    package init() {}

    /// Exchanges the fields, and with them their storage.
    package mutating func swapFields(_ other: inout HeaderFields) { swap(&fields, &other) }

    /// Reads one head from the beginning of `bytes`.
    package mutating func parse(_ bytes: Span<UInt8>, limits: HeadLimits) -> HeadOutcome {
        fields.removeAll()
        var start = 0
        // RFC 9112 §2.2: some clients send CR LF behind a body. One is skipped; more would be a way to keep a
        // connection busy with nothing.
        switch skipEmptyLine(bytes) {
        case .next(let offset): start = offset
        case .needMore: return .needMore
        case .malformed(let violation): return .malformed(violation)
        }
        let fieldsStart: Int
        switch parseRequestLine(bytes, from: start, limits) {
        case .next(let offset): fieldsStart = offset
        case .needMore: return .needMore
        case .malformed(let violation): return .malformed(violation)
        }
        var section = FieldSection(isRequest: true)
        switch section.parse(bytes, from: fieldsStart, limits: limits, into: &fields) {
        case .next(let offset): length = offset
        case .needMore: return .needMore
        case .malformed(let violation): return .malformed(violation)
        }
        if let rule = section.framingViolation(version: version) {
            return .malformed(Violation(rule, at: fields.first(.transferEncoding)?.line.lowerBound ?? fieldsStart))
        }
        return conclude(section, bytes, start: start)
    }

    private func skipEmptyLine(_ bytes: Span<UInt8>) -> Scan {
        guard bytes.count > 0 else { return .needMore }
        if bytes[0] == ASCII.lineFeed { return .refuse(.bareLineFeed, at: 0) }
        guard bytes[0] == ASCII.carriageReturn else { return .next(0) }
        guard bytes.count > 1 else { return .needMore }
        guard bytes[1] == ASCII.lineFeed else { return .refuse(.bareCarriageReturn, at: 0) }
        guard bytes.count > 2 else { return .needMore }
        return bytes[2] == ASCII.carriageReturn ? .refuse(.emptyLines, at: 2) : .next(2)
    }

    private mutating func conclude(_ section: FieldSection, _ bytes: Span<UInt8>, start: Int) -> HeadOutcome {
        let host = fields.first(.host)?.value
        if host == nil, version == .http11 { return .malformed(Violation(.missingHost, at: start)) }
        if form != .absolute { authority = host ?? 0..<0 }
        framing =
            if section.isChunked {
                .chunked
            } else if section.contentLength >= 0 {
                .length(section.contentLength)
            } else {
                .none
            }
        if let rule = methodViolation { return .malformed(Violation(rule, at: start)) }
        respelledLength = section.respelledLength
        keepAlive = section.persists(version: version)
        // RFC 9110 §7.8, §10.1.1: neither an upgrade nor an expectation counts in HTTP/1.0.
        expectsContinue = section.expectsContinue && version == .http11
        acceptsTrailers = section.namesTE && version == .http11 && listsTrailers(bytes)
        upgrade = section.upgrade && version == .http11 ? fields.first(.upgrade)?.value : nil
        return .complete(length: length)
    }
}

// Trailers
extension RequestHead {
    private func listsTrailers(_ bytes: Span<UInt8>) -> Bool {
        for field in fields where field.id == .te {
            var codings = ListElements(field.value)
            while let coding = codings.next(bytes) {
                if NameKey(bytes, coding) == .trailers { return true }
            }
        }
        return false
    }
}

// What the method allows
extension RequestHead {
    private var methodViolation: Rule? {
        switch method {
        case .post, .put, .patch:
            // RFC 1945 §7.2.2, §8.3: in HTTP/1.0 the end of the connection cannot end a request, and a body that nobody
            // has announced would be read as the next one.
            version == .http10 && framing == .none ? .lengthRequired : nil
        case .trace:
            // RFC 9110 §9.3.8: a server that does not expect content reads it as the next request, or echoes it.
            switch framing {
            case .none, .length(0): nil
            case .length, .chunked: .traceWithBody
            }
        case .get, .head, .delete, .options, .connect, .other: nil
        }
    }
}

// The request line
extension RequestHead {
    private mutating func parseRequestLine(_ bytes: Span<UInt8>, from start: Int, _ limits: HeadLimits) -> Scan {
        let end = min(bytes.count, limits.startLineEnd(from: start))
        var i = start

        var packed: UInt64 = 0
        while i < end, isToken(bytes[i]) {
            guard i - start < CodecLimits.methodBytesMax else { return .refuse(.methodTooLong, at: i) }
            packed = packed << 8 | UInt64(bytes[i])
            i += 1
        }
        guard i < end else { return .ranOut(at: end, of: bytes, limit: .startLineTooLong) }
        // A TLS ClientHello begins with 0x16 and ends here, on its first byte.
        guard bytes[i] == ASCII.space, i > start else { return .refuse(lineViolation(bytes[i], .invalidMethod), at: i) }
        methodBytes = start..<i
        method = Method(packed: packed, length: i - start)
        // RFC 9110 §9.3.6: a tunnel would lead past every rule that the gateway enforces.
        if method == .connect { return .refuse(.connectMethod, at: start) }
        i += 1

        let targetStart = i
        var query = -1
        while i < end, isTarget(bytes[i]) {
            if bytes[i] == ASCII.questionMark, query < 0 { query = i }
            i += 1
        }
        guard i < end else { return .ranOut(at: end, of: bytes, limit: .startLineTooLong) }
        guard bytes[i] == ASCII.space else { return .refuse(targetViolation(bytes[i]), at: i) }
        guard i > targetStart else { return .refuse(.malformedRequestLine, at: i) }
        target = targetStart..<i
        if let violation = classifyTarget(bytes, query: query < 0 ? i : query) { return .malformed(violation) }
        i += 1

        switch parseVersion(bytes, from: i, end: end, .malformedRequestLine, limit: .startLineTooLong) {
        case .version(let version, let offset):
            self.version = version
            i = offset
        case .stopped(let scan): return scan
        }
        guard i < end else { return .ranOut(at: end, of: bytes, limit: .startLineTooLong) }
        guard bytes[i] == ASCII.carriageReturn else {
            return .refuse(lineViolation(bytes[i], .malformedRequestLine), at: i)
        }
        i += 1
        guard i < end else { return .ranOut(at: end, of: bytes, limit: .startLineTooLong) }
        guard bytes[i] == ASCII.lineFeed else { return .refuse(.bareCarriageReturn, at: i - 1) }
        // RFC 9112 §3.2.4.
        if form == .asterisk, method != .options { return .refuse(.asteriskForm, at: targetStart) }
        return .next(i + 1)
    }

    private func lineViolation(_ byte: UInt8, _ otherwise: Rule) -> Rule {
        byte == ASCII.lineFeed ? .bareLineFeed : otherwise
    }

    /// A line that ends behind the target is HTTP/0.9, which has neither fields nor statuses: a gateway that took it
    /// would answer with something that the client cannot tell from a body.
    private func targetViolation(_ byte: UInt8) -> Rule {
        switch byte {
        case ASCII.lineFeed: .bareLineFeed
        case ASCII.carriageReturn: .malformedRequestLine
        default: .invalidTarget
        }
    }

    /// Sets form, path and authority from `target`, whose query begins at `query`.
    private mutating func classifyTarget(_ bytes: Span<UInt8>, query: Int) -> Violation? {
        let start = target.lowerBound
        let end = target.upperBound
        isHTTPS = false
        if bytes[start] == ASCII.slash {
            form = .origin
            path = start..<query
            pathAndQuery = target
            return nil
        }
        if bytes[start] == UInt8(ascii: "*"), target.count == 1 {
            form = .asterisk
            path = end..<end
            pathAndQuery = target
            return nil
        }
        // RFC 9112 §3.2.2: a server accepts absolute-form. Other schemes, and authority-form outside CONNECT, are
        // attempts to reach a proxy behind us.
        guard let hostStart = authorityStart(bytes) else { return Violation(.targetForm, at: start) }
        var hostEnd = hostStart
        while hostEnd < query, bytes[hostEnd] != ASCII.slash { hostEnd += 1 }
        guard isHost(bytes, hostStart..<hostEnd) else { return Violation(.malformedHost, at: hostStart) }
        form = .absolute
        isHTTPS = bytes[start + 4] != ASCII.colon
        authority = hostStart..<hostEnd
        path = hostEnd..<query
        pathAndQuery = hostEnd..<end
        return nil
    }

    /// The offset behind `http://` or `https://` at the beginning of the target.
    private func authorityStart(_ bytes: Span<UInt8>) -> Int? {
        let end = target.upperBound
        var i = target.lowerBound
        var scheme: UInt64 = 0
        while i < end, i - target.lowerBound < 8, bytes[i] != ASCII.colon {
            scheme = scheme << 8 | UInt64(bytes[i] | 0x20)
            i += 1
        }
        guard scheme == 0x68_74_74_70 || scheme == 0x68_74_74_70_73, end - i >= 3 else { return nil }
        guard bytes[i + 1] == ASCII.slash, bytes[i + 2] == ASCII.slash else { return nil }
        return bytes[i] == ASCII.colon ? i + 3 : nil
    }
}
