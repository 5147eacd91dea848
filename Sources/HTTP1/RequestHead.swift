// The head of a request (RFC 9112 §3): parsed into offsets, nothing is copied.

package import LinuxIO

/// Request methods (RFC 9110 §9); any other token passes as `other`.
package enum Method: UInt8, Sendable {
    case get, head, post, put, delete, patch, options, trace, connect, other

    /// RFC 9110 §9.2.2: sending it twice has the effect of sending it once.
    package var isIdempotent: Bool {
        switch self {
        case .get, .head, .put, .delete, .options, .trace: true
        case .post, .patch, .connect, .other: false
        }
    }

    /// Methods are case-sensitive (RFC 9110 §9.1).
    static func classify(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Method {
        var word: UInt64 = 0
        guard range.count <= 8 else { return .other }
        for i in range { word = word << 8 | UInt64(bytes[i]) }
        switch word {
        case 0x474554: return .get
        case 0x4845_4144: return .head
        case 0x504f_5354: return .post
        case 0x505554: return .put
        case 0x4445_4c45_5445: return .delete
        case 0x50_4154_4348: return .patch
        case 0x4f_5054_494f_4e53: return .options
        case 0x54_5241_4345: return .trace
        case 0x43_4f4e_4e45_4354: return .connect
        default: return .other
        }
    }
}

package enum HTTPVersion: UInt8, Sendable {
    case http10, http11
}

/// The forms of a request target (RFC 9112 §3.2); the authority form belongs to CONNECT, which is refused.
package enum TargetForm: UInt8, Sendable {
    case origin, absolute, asterisk
}

/// How long a request's body is (RFC 9112 §6.3).
package enum RequestFraming: Equatable, Sendable {
    case none
    case length(Int64)
    case chunked
}

/// One parsed request head. Reuse it: its storage serves the next one.
package struct RequestHead: Sendable {
    package private(set) var method = Method.get
    package private(set) var methodBytes = 0..<0
    /// The target as sent.
    package private(set) var target = 0..<0
    package private(set) var form = TargetForm.origin
    /// Without the query; empty for an absolute form without a path.
    package private(set) var path = 0..<0
    package private(set) var pathAndQuery = 0..<0
    /// The target's authority where it has one, else Host; empty for HTTP/1.0 without either.
    package private(set) var authority = 0..<0
    package private(set) var version = HTTPVersion.http11
    package private(set) var framing = RequestFraming.none
    package private(set) var expectsContinue = false
    package private(set) var section = FieldSection()

    package init() {}

    package var fields: [HeaderField] { section.fields }
    package func contains(_ name: FieldName) -> Bool { section.present.contains(name) }

    /// RFC 9112 §9.3.
    package var keepAlive: Bool {
        if section.connectionClose { return false }
        return version == .http11 || section.connectionKeepAlive
    }

    /// Empty lines that a client may have left behind its last body (RFC 9112 §2.2) and that are skipped.
    private static let emptyLinesMax = 2

    /// Parses a head from the beginning of `bytes`. Give it all that has arrived so far: it keeps no state between calls,
    /// judges every complete line at once, and finds the same however the bytes were cut.
    package mutating func parse(_ bytes: Span<UInt8>, limits: HeadLimits) -> HeadOutcome {
        var start = 0
        for _ in 0..<Self.emptyLinesMax {
            guard start < bytes.count, bytes[start] == carriageReturn else { break }
            guard start + 1 < bytes.count else { return .needMore }
            guard bytes[start + 1] == lineFeed else { return .malformed(Violation(.lineEnding, at: start)) }
            start += 2
        }
        guard start < bytes.count else { return .needMore }
        let next: Int
        switch parseLine(bytes, start, limits) {
        case .found(_, let position): next = position
        case .needMore: return .needMore
        case .malformed(let violation): return .malformed(violation)
        }
        section.reset()
        switch section.parse(bytes, from: next, limits: limits, request: true) {
        case .complete(let length):
            if let violation = conclude(bytes, length) { return .malformed(violation) }
            return .complete(length: length)
        case .needMore: return .needMore
        case .malformed(let violation): return .malformed(violation)
        }
    }

    // MARK: Request line

    private mutating func parseLine(_ bytes: Span<UInt8>, _ start: Int, _ limits: HeadLimits) -> LineEnd {
        // Methods are short; a first byte that begins none (a TLS hello, say) is refused before a line is complete.
        var i = start
        while i < bytes.count, Characters.token.contains(bytes[i]) { i += 1 }
        if tooLong(i - start, limits) { return .malformed(Violation(.requestLineLength, at: i)) }
        guard i < bytes.count else { return .needMore }
        guard bytes[i] == space, i > start else { return .malformed(Violation(.method, at: i)) }
        let methodRange = start..<i
        i += 1
        let targetStart = i
        while i < bytes.count, Characters.target.contains(bytes[i]) { i += 1 }
        if tooLong(i - start, limits) { return .malformed(Violation(.requestLineLength, at: i)) }
        guard i < bytes.count else { return .needMore }
        guard bytes[i] == space else {
            let endsLine = bytes[i] == carriageReturn || bytes[i] == lineFeed
            return .malformed(Violation(endsLine ? .requestLine : .target, at: i))
        }
        guard i > targetStart else { return .malformed(Violation(.requestLine, at: i)) }
        let targetRange = targetStart..<i
        switch parseVersion(bytes, i + 1) {
        case .found(let end, let next):
            if tooLong(next - start, limits) { return .malformed(Violation(.requestLineLength, at: end)) }
            methodBytes = methodRange
            method = Method.classify(bytes, methodRange)
            if let violation = parseTarget(bytes, targetRange) { return .malformed(violation) }
            return .found(end: end, next: next)
        case .needMore: return .needMore
        case .malformed(let violation): return .malformed(violation)
        }
    }

    private func tooLong(_ length: Int, _ limits: HeadLimits) -> Bool {
        limits.requestLineBytes > 0 && length > limits.requestLineBytes
    }

    private mutating func parseVersion(_ bytes: Span<UInt8>, _ start: Int) -> LineEnd {
        switch HTTPVersion.parse(bytes, start) {
        case .found(let parsed, let end):
            version = parsed
            guard end < bytes.count else { return .needMore }
            guard bytes[end] == carriageReturn else {
                return .malformed(Violation(bytes[end] == lineFeed ? .lineEnding : .requestLine, at: end))
            }
            guard end + 1 < bytes.count else { return .needMore }
            guard bytes[end + 1] == lineFeed else { return .malformed(Violation(.lineEnding, at: end)) }
            return .found(end: end, next: end + 2)
        case .needMore: return .needMore
        case .malformed(let violation): return .malformed(violation)
        }
    }

    private mutating func parseTarget(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Violation? {
        target = range
        authority = range.lowerBound..<range.lowerBound
        if method == .connect { return Violation(.connect, at: methodBytes.lowerBound) }
        let first = bytes[range.lowerBound]
        if first == UInt8(ascii: "/") {
            form = .origin
            setPath(bytes, range)
            return nil
        }
        if first == UInt8(ascii: "*"), range.count == 1 {
            // RFC 9112 §3.2.4: only OPTIONS asks about the server as a whole.
            guard method == .options else { return Violation(.target, at: range.lowerBound) }
            form = .asterisk
            path = range
            pathAndQuery = range
            return nil
        }
        return parseAbsolute(bytes, range)
    }

    /// RFC 9112 §3.2.2: `http://host/path`, as clients of a forward proxy send it.
    private mutating func parseAbsolute(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Violation? {
        var i = range.lowerBound
        while i < range.upperBound, bytes[i] != UInt8(ascii: ":") { i += 1 }
        let scheme = range.lowerBound..<i
        guard equalsIgnoringCase(bytes, scheme, Words.http) || equalsIgnoringCase(bytes, scheme, Words.https),
            i + 2 < range.upperBound, bytes[i + 1] == UInt8(ascii: "/"), bytes[i + 2] == UInt8(ascii: "/")
        else { return Violation(.target, at: range.lowerBound) }
        let start = i + 3
        i = start
        while i < range.upperBound, bytes[i] != UInt8(ascii: "/"), bytes[i] != UInt8(ascii: "?") { i += 1 }
        guard FieldSection.isAuthority(bytes, start..<i) else { return Violation(.target, at: start) }
        form = .absolute
        authority = start..<i
        setPath(bytes, i..<range.upperBound)
        return nil
    }

    private mutating func setPath(_ bytes: Span<UInt8>, _ range: Range<Int>) {
        pathAndQuery = range
        var i = range.lowerBound
        while i < range.upperBound, bytes[i] != UInt8(ascii: "?") { i += 1 }
        path = range.lowerBound..<i
    }

    // MARK: Conclusions

    private mutating func conclude(_ bytes: Span<UInt8>, _ length: Int) -> Violation? {
        // RFC 9112 §3.2: without Host the gateway cannot tell what the client asks for.
        if version == .http11, section.host == nil { return Violation(.hostMissing, at: length) }
        if form != .absolute { authority = section.host ?? authority }
        if present(.transferEncoding) {
            // RFC 9112 §6.1: both framings present: refuse, or a second request hides in the body.
            if section.contentLength != nil { return Violation(.lengthAndCoding, at: length) }
            // An HTTP/1.0 sender does not know chunked; a gateway before us may have read the body by other rules.
            if version == .http10 { return Violation(.codingInHTTP10, at: length) }
            framing = .chunked
        } else if let contentLength = section.contentLength {
            framing = .length(contentLength)
        } else {
            framing = .none
        }
        expectsContinue = false
        if present(.expect), version == .http11 {
            for field in section.fields where field.id == .expect {
                if equalsIgnoringCase(bytes, field.value, Words.expectContinue) { expectsContinue = true }
            }
        }
        return nil
    }

    private func present(_ name: FieldName) -> Bool { section.present.contains(name) }

    /// Copies the field lines that go on to the backend; see `FieldSection.copy`.
    package func copyFields(from bytes: Span<UInt8>, to output: inout ByteBuffer, dropping: FieldSet) {
        section.copy(from: bytes, to: &output, dropping: dropping)
    }
}

extension HTTPVersion {
    enum Parsed {
        case found(HTTPVersion, end: Int)
        case needMore
        case malformed(Violation)
    }

    /// `HTTP/1.1` at `start` (RFC 9112 §2.3).
    static func parse(_ bytes: Span<UInt8>, _ start: Int) -> Parsed {
        var expected: UInt64 = 0x4854_5450_2f00_0000
        for i in 0..<5 {
            guard start + i < bytes.count else { return .needMore }
            guard bytes[start + i] == UInt8(truncatingIfNeeded: expected >> 56) else {
                return .malformed(Violation(.version, at: start + i))
            }
            expected <<= 8
        }
        guard start + 5 < bytes.count else { return .needMore }
        guard isDigit(bytes[start + 5]) else { return .malformed(Violation(.version, at: start + 5)) }
        guard start + 6 < bytes.count else { return .needMore }
        guard bytes[start + 6] == UInt8(ascii: ".") else { return .malformed(Violation(.version, at: start + 6)) }
        guard start + 7 < bytes.count else { return .needMore }
        guard isDigit(bytes[start + 7]) else { return .malformed(Violation(.version, at: start + 7)) }
        guard bytes[start + 5] == UInt8(ascii: "1") else {
            return .malformed(Violation(.versionUnsupported, at: start + 5))
        }
        switch bytes[start + 7] {
        case UInt8(ascii: "0"): return .found(.http10, end: start + 8)
        case UInt8(ascii: "1"): return .found(.http11, end: start + 8)
        default: return .malformed(Violation(.versionUnsupported, at: start + 7))
        }
    }
}

@inline(__always)
func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }
